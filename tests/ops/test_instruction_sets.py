"""One binary for every processor: dispatch, and no illegal instruction."""
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmadder.ops.extension import BINARY

ROOT = Path(__file__).parents[2]
UNITS = sorted(ROOT.glob('mmadder/csrc/cpu/kernels_*.cpp'))
# Units for any x86-64; each other unit's instructions stay in that unit.
BASELINE = {'kernels_portable.cpp'}
X86 = os.uname().machine == 'x86_64'


def run_python(*arguments, isa=None, prefix=()):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(
        path for path in sys.path if path))
    environment.pop('MMADDER_CPU_ISA', None)
    if isa:
        environment['MMADDER_CPU_ISA'] = isa
    return subprocess.run(
        [*prefix, sys.executable, *arguments], env=environment,
        capture_output=True, text=True)


# Without the package, whose other parts take minutes to import in qemu.
CALL = '''
import runpy, sys
import torch
torch.ops.load_library(sys.argv[1])
reference, geometries = map(runpy.run_path, sys.argv[2:])
for geometry in geometries['GEOMETRIES']:
    x, w, g = geometry.tensors()
    arguments = geometry.arguments
    expected = reference['adder_conv2d'](x, w, *arguments)
    for mode in ('auto', 'exact', 'max'):
        y = torch.ops.mmadder.adder_conv2d(x, w, *arguments, mode, 'sign')
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)
    expected, _ = reference['adder_conv2d_backward'](g, x, w, *arguments)
    grad = torch.ops.mmadder.adder_conv2d_input_grad(
        g, x, w, *arguments, 'hardtanh')
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=2e-3)
'''


def call(isa=None, prefix=()):
    """Loads the binary and compares its kernels with the reference."""
    return run_python(
        '-c', CALL, BINARY, ROOT / 'mmadder/ops/reference.py',
        ROOT / 'tests/geometries.py', isa=isa, prefix=prefix)


def supported(isa='none', prefix=()):
    """Names of the kernels that run here, best first, from the error."""
    message = call(isa, prefix).stderr
    found = re.search(
        rf'MMADDER_CPU_ISA={isa} is not supported here; this processor '
        r'runs: ([\w, ]+)', message)
    assert found, message
    return found[1].split(', ')


@pytest.fixture(scope='session')
def isas():
    return supported()


def test_each_unit_has_a_name(isas):
    known = {unit.stem.partition('_')[2] for unit in UNITS}
    assert set(isas) <= known and isas[-1] == 'portable'


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_kernels_by_request(unit, isas):
    """Random geometries, centering, plans, edge values, integer networks, with
    this table."""
    isa = unit.stem.partition('_')[2]
    if isa not in isas:
        pytest.skip(f'this processor does not run {isa}')
    if isa == os.environ.get('MMADDER_CPU_ISA', isas[0]):
        pytest.skip(f'{isa} kernels run in this process')
    folder = Path(__file__).parent
    result = run_python(
        '-m', 'pytest', '-q', '-c', ROOT / 'pyproject.toml',
        '--hypothesis-profile=few', folder / 'test_random_geometries.py',
        folder / 'test_center.py', folder / 'test_plan_class.py',
        folder / 'test_edge_values.py',
        folder.parent / 'integer' / 'test_native.py', isa=isa)
    assert result.returncode == 0, result.stdout[-4000:]


# ------------------------------------------------------------ disassembly --


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f'{tool} was not found (apt-get install binutils)')
    if not X86:
        pytest.skip('x86-64 only')


# Beyond x86-64 as of 2003, which every 64-bit processor runs: the AVX
# families (all begin with v), mask registers, and BMI, ADX, SSE3 to SSE4.2.
EXTENDED = re.compile(
    r'v(?!err|erw|mcall|mlaunch|mresume)\w+|k(?:mov|and|andn|or|xor|xnor|not|'
    r'ortest|test|add|shift[lr]|unpck)\w*|'
    r'andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|s[ah]rx|shlx|'
    r'lzcnt|tzcnt|popcnt|movbe|adcx|adox|crc32\w*|'
    r'addsubp[sd]|h(?:add|sub)p[sd]|lddqu|movddup|movs[hl]dup|'
    r'pabs[bwd]|palignr|ph(?:add|sub)\w+|pmaddubsw|pmulhrsw|pshufb|'
    r'psign[bwd]|blendv?p[sd]|dpp[sd]|extractps|insertps|movntdqa|mpsadbw|'
    r'packusdw|pblend\w+|pcmp(?:eqq|gtq|[ei]str[im])|p(?:ext|ins)r[bdq]|'
    r'p(?:max|min)(?:sb|sd|ud|uw)|pmov[sz]x\w+|pmul(?:dq|ld)|ptest|'
    r'rounds?[ps][sd]')
INSTRUCTION = re.compile(r'^\s*[0-9a-f]+:\s+(?:(?:lock|rep\w*|bnd|notrack|'
                         r'data16|cs|ds|es|fs|gs)\s+)*(\w+)')


def functions_with_extensions(binary):
    """{address of a function: first instruction beyond the baseline}."""
    listing = subprocess.run(
        ['objdump', '-d', '--no-show-raw-insn', binary], check=True,
        capture_output=True, text=True).stdout
    found, address = {}, None
    for line in listing.splitlines():
        heading = re.match(r'([0-9a-f]+) <.*>:$', line)
        if heading:
            address = int(heading[1], 16)
            continue
        instruction = INSTRUCTION.match(line)
        if instruction and EXTENDED.fullmatch(instruction[1]):
            found.setdefault(address, line.strip())
    return found


def functions_by_unit(binary):
    """{address: (source file or None, name)} of all functions.

    A symbol table lists local symbols behind the name of their file; hidden
    ones, which the linker makes local, come last and name none.
    """
    listing = subprocess.run(
        ['readelf', '-sW', '-C', binary], check=True, capture_output=True,
        text=True).stdout
    functions, unit = {}, None
    symbol = re.compile(r'\s*\d+: ([0-9a-f]+)\s+\w+ (\w+)\s+(\w+)\s+\w+\s+'
                        r'\w+ ?(.*)')
    for line in listing[listing.index("'.symtab'"):].splitlines():
        match = symbol.match(line)
        if match is None:
            continue
        address, kind, binding, name = match.groups()
        if kind == 'FILE':
            unit = name or None
        elif kind in ('FUNC', 'NOTYPE') and int(address, 16):
            functions[int(address, 16)] = (
                unit if binding == 'LOCAL' else None, name)
    return functions


def strays(binary):
    """Functions outside their units with instructions beyond x86-64."""
    functions = functions_by_unit(binary)
    allowed = {unit.name for unit in UNITS} - BASELINE
    found = []
    for address, instruction in functions_with_extensions(binary).items():
        unit, name = functions.get(address, (None, hex(address)))
        entry = re.fullmatch(r'mmadder::cpu::(\w+)_kernels\(\).*', name)
        owner = f'kernels_{entry[1]}.cpp' if entry else unit
        if owner not in allowed:
            found.append(f'{name} in {owner}: {instruction}')
    return found


def test_extended_instructions_stay_in_their_units():
    need('objdump', 'readelf')
    assert functions_with_extensions(BINARY), 'there are vector kernels'
    assert not strays(BINARY)


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_units_share_nothing(unit, tmp_path):
    """Each gives the linker one function, everything else is its own.

    A template or an inline function of a header would be a weak symbol: the
    linker keeps one copy for all units, perhaps the one with instructions
    that this processor lacks.
    """
    compiler = os.environ.get('CXX', 'g++')
    need(compiler, 'nm')
    target = tmp_path / 'unit.o'
    # Unoptimized: what inlining would hide shows as well.
    subprocess.run([compiler, '-c', '-O0', '-std=c++17', '-fPIC', '-w', unit,
                    '-o', target], check=True)
    listing = subprocess.run(
        ['nm', '-C', target], check=True, capture_output=True,
        text=True).stdout
    symbols = re.findall(r'^[0-9a-f ]{16} (\w) (.*)', listing, re.M)
    # Local ones have small letters; DW.ref.* are pointers of the exception
    # tables, and what is undefined comes from elsewhere, hence for any x86-64.
    shared = [name for kind, name in symbols if kind in 'ABCDGRSTVWuvwi'
              and not name.startswith('DW.ref.')]
    assert shared == [f'mmadder::cpu::{unit.stem.partition("_")[2]}_kernels()']


def test_the_check_sees_a_stray(tmp_path):
    """The same function once more, in a file that is no unit."""
    need('gcc', 'objdump', 'readelf')
    source = tmp_path / 'driver.c'
    source.write_text('void twice(float *x, int n) '
                      '{ for (int i = 0; i < n; ++i) x[i] *= 2; }')
    for flag, count in (('-mavx2', 1), ('-msse2', 0)):
        subprocess.run(['gcc', '-shared', '-fPIC', '-O3', flag, source, '-o',
                        tmp_path / 'driver.so'], check=True)
        assert len(strays(tmp_path / 'driver.so')) == count


# -------------------------------------------------------------- emulation --


def qemu(cpu):
    if not X86 or shutil.which('qemu-x86_64') is None:
        pytest.skip('qemu-x86_64 was not found (apt-get install qemu-user)')
    return 'qemu-x86_64', '-cpu', cpu


@pytest.mark.slow
@pytest.mark.parametrize('cpu, expected', [
    ('Nehalem', ['portable']),  # of 2008: SSE4.2, no AVX
    ('Haswell', ['avx2', 'portable']),  # no AVX-512
])
def test_old_processors_in_qemu(cpu, expected):
    """Other instructions than the processor's own end the process there."""
    prefix = qemu(cpu)
    assert supported(prefix=prefix) == expected
    result = call(prefix=prefix)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_qemu_refuses_what_an_old_processor_lacks(tmp_path):
    need('gcc')
    source = tmp_path / 'main.c'
    source.write_text('int main(void) '
                      '{ __asm__("vxorps %ymm0, %ymm0, %ymm0"); return 0; }')
    program = tmp_path / 'main'
    subprocess.run(['gcc', source, '-o', program], check=True)
    returned = [subprocess.run([*qemu(cpu), program]).returncode
                for cpu in ('Nehalem', 'Haswell')]
    assert returned == [-signal.SIGILL, 0]
