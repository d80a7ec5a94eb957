"""Compiles the CUDA kernels as C++ and runs them on a CPU.

See cuda/cuda_emulation.h for how, and for what this can and cannot show.
"""
import struct
import subprocess
from pathlib import Path

import numpy as np
import torch
from geometries import Geometry

CSRC = Path(__file__).parents[1] / 'mmadder' / 'csrc' / 'cuda'
SOURCES = Path(__file__).parent / 'cuda'
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
FORMS = ['hardtanh', 'sign']
ORDERS = ['up', 'down', 'shuffled']
SANITIZERS = {
    None: [],
    'address': ['-fsanitize=address,alignment',
                '-fno-sanitize-recover=undefined'],
    'thread': ['-fsanitize=thread'],
}
# The kernels' 32-bit sums and products wrap nowhere, but a pointer of
# cp.async may lie outside of a tensor where nothing is read.
ENVIRONMENT = dict(TSAN_OPTIONS='halt_on_error=1', ASAN_OPTIONS='')


def compile_emulation(folder, sanitizer=None, csrc=CSRC):
    """Compile the kernels in csrc; return the program."""
    program = Path(folder) / f'emulate_{sanitizer}'
    result = subprocess.run(
        ['g++', '-std=c++17', '-O1', *SANITIZERS[sanitizer],
         f'-I{SOURCES}', f'-I{csrc}', SOURCES / 'emulate.cpp', '-o', program],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-4000:]
    return program


class Problem:
    """One geometry with its tensors, rounded to a dtype.

    With ``fused``, a str that names 'shortcut', 'relu', both or neither, the
    forward of inference runs instead, in float32.
    """

    def __init__(self, geometry, dtype=torch.float32, form='hardtanh',
                 order='up', multiprocessors=1, seed=0, change=None,
                 center=False, fused=None):
        self.geometry, self.dtype, self.form = geometry, dtype, form
        self.order, self.multiprocessors = order, multiprocessors
        self.seed, self.center = seed, center
        tensors = geometry.tensors(dtype, seed)
        if change is not None:
            change(*tensors)
        self.input, self.weight, self.grad_output = tensors
        self.fused = fused
        generator = torch.Generator().manual_seed(seed + 1)
        self.norm = torch.randn(3, geometry.out_channels, generator=generator)
        self.residual = torch.randn(
            self.grad_output.shape, generator=generator)

    def __repr__(self):
        return (f'{self.geometry} {self.dtype} {self.form} {self.order} '
                f'on {self.multiprocessors} multiprocessors'
                f'{", centered" if self.center else ""}'
                f'{"" if self.fused is None else ", fused: " + self.fused}')

    def to_bytes(self):
        n, c, size, m, *pairs, groups = self.geometry
        header = [
            DTYPES.index(self.dtype), FORMS.index(self.form),
            self.multiprocessors, ORDERS.index(self.order), self.seed, n, c,
            *size, m, *(x for pair in pairs for x in pair), groups,
            self.center, self.fused is not None,
            *(word in (self.fused or '') for word in ('shortcut', 'relu'))]
        tensors = (self.input, self.weight, *(
            (self.grad_output, ) if self.fused is None
            else (self.norm, self.residual)))
        return struct.pack('23i', *header) + b''.join(
            t.double().numpy().tobytes() for t in tensors)


class Result:
    """What the kernels made of a problem, in float64."""

    def __init__(self, problem, file):
        if problem.fused is not None:
            self.fused_plan, = np.fromfile(file, np.float64, 1)
            self.output = self._tensor(file, problem.grad_output.shape)
            return
        self.forward_plan, self.input_grad_plan = np.fromfile(
            file, np.float64, 2)
        self.output = self._tensor(file, problem.grad_output.shape)
        self.grad_input = self._tensor(file, problem.input.shape)

    @staticmethod
    def _tensor(file, shape):
        values = np.fromfile(file, np.float64, shape.numel())
        assert len(values) == shape.numel(), 'results are incomplete'
        return torch.from_numpy(values).view(shape)


def run_far(program):
    """Compare the end of a tensor of 2^31 elements with a small one."""
    process = subprocess.run([program, 'far'], env=ENVIRONMENT,
                             capture_output=True, text=True)
    if process.returncode:
        raise Crash(process.stderr[:4000])


class Crash(Exception):
    """The program ended with an error; the text says which."""


def run(program, problems, folder):
    """Return the Results of the problems."""
    inputs, outputs = Path(folder) / 'problems', Path(folder) / 'results'
    inputs.write_bytes(b''.join(p.to_bytes() for p in problems))
    process = subprocess.run(
        [program, inputs, outputs], env=ENVIRONMENT, capture_output=True,
        text=True)
    if process.returncode:
        raise Crash(process.stderr[:4000])
    with open(outputs, 'rb') as file:
        return [Result(problem, file) for problem in problems]


def random_geometries(count, seed=7):
    """Small shapes of all kinds whose output is not empty."""
    draw = np.random.default_rng(seed).integers
    geometries = []
    while len(geometries) < count:
        groups = int(draw(1, 4)) if draw(3) == 0 else 1
        pairs = [tuple(int(v) for v in draw(low, high, 2))
                 for low, high in ((3, 13), (1, 4), (1, 4), (0, 3), (1, 3))]
        size, kernel, stride, padding, dilation = pairs
        if all(extent + 2 * p > d * (k - 1) for extent, k, p, d in zip(
                size, kernel, padding, dilation)):
            geometries.append(Geometry(
                int(draw(1, 3)), groups * int(draw(1, 19)), size,
                groups * int(draw(1, 37)), kernel, stride, padding, dilation,
                groups))
    return geometries
