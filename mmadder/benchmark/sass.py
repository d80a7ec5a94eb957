"""What the GPU executes: instructions of the compiled CUDA kernels.

Counts the main loop of each tiled kernel in the built library, with
cuobjdump, and turns the count into a share of the arithmetic ceiling. Nothing
is run. nvcc's toolkit carries cuobjdump, and so does Triton's wheel.
"""
import collections
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmadder.errors import InputError

# Two per term: x - w and the sum of its magnitude; gradient: saturated
# difference and multiply-add. HADD2 and HFMA2 serve two terms at once.
USEFUL = ('FADD', 'FFMA', 'HADD2', 'HFMA2')
LOCAL = ('LDL', 'STL')
DTYPES = {'f': 'float32', '6__half': 'float16', '13__nv_bfloat16': 'bfloat16'}

_KERNEL = re.compile(
    r'adder_conv2d_(?P<op>forward|input_grad)_kernel'
    r'I(?P<dtype>f|6__half|13__nv_bfloat16)(?P<shared>f|S\d_)?'
    r'(?:NS\d_)?\w*?4TileI(?P<tile>(?:Li\d+E){5})EELb(?P<whole>[01])E'
    r'(?:LNS\d_13InputGradientE(?P<form>[01])E|NS\d_(?P<end>8Epilogue)?)?')
_INSTRUCTION = re.compile(r'\s+/\*([0-9a-f]{4,})\*/\s+(.*?);')
_BRANCH = re.compile(r'\bBRA\S*\s.*?(0x[0-9a-f]+)')


def find_cuobjdump() -> str | None:
    """Path of cuobjdump from PATH, CUDA_HOME or Triton's wheel, or None."""
    candidates = [shutil.which('cuobjdump')]
    if 'CUDA_HOME' in os.environ:
        candidates.append(Path(os.environ['CUDA_HOME'], 'bin', 'cuobjdump'))
    triton = importlib.util.find_spec('triton')
    if triton is not None:
        candidates.append(Path(triton.origin).parent / 'backends' / 'nvidia' /
                          'bin' / 'cuobjdump')
    return next((str(path) for path in candidates
                 if path and Path(path).exists()), None)


class TiledKernel(NamedTuple):
    """Which instance of a template a kernel is."""
    op: str  # 'forward', 'fused' or 'input_grad'
    form: str  # '', 'hardtanh' or 'sign'
    dtype: str
    half_pairs: bool
    rows: int
    pixels: int
    depth: int
    thread_rows: int
    blocks_per_sm: int  # planned
    whole_taps: bool

    @classmethod
    def from_name(cls, mangled: str) -> 'TiledKernel | None':
        """The instance of a mangled name, or None for other kernels."""
        match = _KERNEL.search(mangled)
        if match is None:
            return None
        return cls(
            'fused' if match['end'] else match['op'],
            {None: '', '0': 'hardtanh', '1': 'sign'}[match['form']],
            DTYPES[match['dtype']],
            match['op'] == 'forward' and match['shared'] != 'f',
            *(int(n) for n in re.findall(r'\d+', match['tile'])),
            match['whole'] == '1')

    @property
    def threads(self) -> int:
        return self.rows // self.thread_rows * (self.pixels // 8)

    @property
    def terms(self) -> int:
        """Terms |x - w| of one thread in one trip through the loop."""
        return self.thread_rows * 8 * self.depth


class Loop:
    """Instructions from the hottest backward branch's target to itself."""

    def __init__(self, instructions: Sequence[str]):
        self.instructions = instructions
        self.opcodes = [opcode(text) for text in instructions]
        self.counts = collections.Counter(
            code.split('.')[0] for code in self.opcodes)

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def useful(self) -> int:
        return sum(self.counts[name] for name in USEFUL)

    @property
    def useful_share(self) -> float:
        return self.useful / len(self) if len(self) else 0.

    def places(self, *names: str) -> list[float]:
        """Where opcodes of these names stand, as a share of the loop."""
        return [i / len(self) for i, code in enumerate(self.opcodes)
                if code.split('.')[0] in names]

    def count(self, name: str, part: str | None = None) -> int:
        """Number of executed opcodes, of those with a part such as '128'."""
        return sum(code.split('.')[0] == name and
                   (part is None or part in code.split('.'))
                   for code, text in zip(self.opcodes, self.instructions)
                   if not text.startswith('@!PT'))  # never executed


class Kernel(NamedTuple):
    """What was counted of one compiled kernel."""
    name: str  # mangled
    tiled: TiledKernel | None
    loop: Loop
    local: int  # instructions that move registers to memory and back
    registers: int
    shared_bytes: int


def opcode(instruction: str) -> str:
    """Return its name, such as 'LDS.128'; a predicate stands before it."""
    words = instruction.split()
    return words[1] if words[0].startswith('@') else words[0]


def main_loop(body: Sequence[tuple[int, str]]) -> Loop:
    """The backward branch around most useful instructions, smallest first."""
    best = Loop([])
    for address, text in body:
        match = _BRANCH.search(text)
        target = int(match[1], 16) if match else address
        if target >= address:
            continue
        loop = Loop([t for a, t in body if target <= a <= address])
        if (loop.useful, -len(loop)) > (best.useful, -len(best)):
            best = loop
    return best


def read_kernels(binary: str | Path, arch: str) -> list[Kernel]:
    """Return the kernels of a library, object or cubin for one arch.

    Args:
        binary: file with device code.
        arch: such as 'sm_80'.
    Raises:
        InputError: no cuobjdump, or no kernels for this arch.
    """
    tool = find_cuobjdump()
    if tool is None:
        raise InputError('cuobjdump was not found: it comes with the CUDA '
                         'toolkit and with `pip install triton`')
    usage = _resource_usage(_run(tool, '-res-usage', arch, binary))
    kernels, name, body = [], None, []

    def finish():
        if name is None:
            return
        registers, shared = usage[name]
        kernels.append(Kernel(
            name, TiledKernel.from_name(name), main_loop(body),
            sum(opcode(text).split('.')[0] in LOCAL for _, text in body),
            registers, shared))

    for line in _run(tool, '-sass', arch, binary):
        match = _INSTRUCTION.match(line)
        if match:
            body.append((int(match[1], 16), match[2].strip()))
        elif 'Function : ' in line:
            finish()
            name, body = line.split('Function : ')[1].strip(), []
    finish()
    return kernels


def _run(tool, what, arch, binary):
    result = subprocess.run(
        [tool, what, '-arch', arch, str(binary)], capture_output=True,
        text=True)
    if result.returncode:
        raise InputError(
            f'{binary} has no readable CUDA kernels for {arch} (build with '
            f'MMADDER_CUDA=1): {result.stderr.strip()}')
    return result.stdout.splitlines()


def _resource_usage(lines):
    """Registers per thread and static shared bytes of each function."""
    usage, name = {}, None
    for line in lines:
        if line.strip().startswith('Function '):
            name = line.strip()[len('Function '):].rstrip(':')
        match = re.search(r'REG:(\d+) .*SHARED:(\d+)', line)
        if match and name:
            usage[name] = int(match[1]), int(match[2])
    return usage
