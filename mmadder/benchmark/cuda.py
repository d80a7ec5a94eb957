"""The part of tools/benchmark.py that needs a GPU.

First correctness: values and gradients on the GPU against the CPU and the
float64 reference, and compute-sanitizer where it is installed. Then the time
of each layer beside cuDNN's convolution, a naive adder kernel
(naive_adder.cu) and unfold + cdist.
"""
import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from mmadder import timing
from mmadder.errors import InputError
from mmadder.ops import adder_conv2d, reference
from mmadder.ops.extension import kernel_devices

from . import operators, summary
from .operators import Problem
from .shapes import Layer

CHECKED = {
    'tails of tiles': Layer(2, 48, (13, 13), 130, 3, 2),
    'few channels': Layer(2, 3, (17, 17), 20, 5),
    'groups': Layer(2, 32, (12, 12), 48, 3, groups=2),
    'depthwise': Layer(2, 24, (9, 9), 24, 3, groups=24),
    '1x1 with stride': Layer(2, 64, (14, 14), 128, 1, 2),
}
PLACES = (('cpu', torch.float32), ('cuda', torch.float32),
          ('cuda', torch.float16), ('cuda', torch.bfloat16))
# Largest error of a value, as a share of the largest value.
LIMITS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def require_gpu() -> None:
    """Raise InputError with advice unless CUDA kernels can run here."""
    if 'cuda' not in kernel_devices():
        raise InputError(
            '--device cuda: mmadder was built without CUDA; build it with '
            '`MMADDER_CUDA=1 pip install -e . --no-build-isolation`')
    if not torch.cuda.is_available():
        raise InputError(
            '--device cuda: torch finds no GPU on this machine')


def describe_gpu() -> dict[str, str | int]:
    """Card, its driver, CUDA and cuDNN: what figures depend on.

    Raises:
        InputError: see :func:`require_gpu`.
    """
    require_gpu()
    driver = subprocess.run(
        ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
        capture_output=True, text=True).stdout.split()
    return dict(
        gpu=torch.cuda.get_device_name(), driver=driver[0] if driver else '?',
        cuda=torch.version.cuda, cuDNN=torch.backends.cudnn.version())


# ------------------------------------------------------------ correctness --


def run_adder(problem: Problem, device: str,
              dtype: torch.dtype) -> list[torch.Tensor]:
    """[output, gradient of x, gradient of w] of the adder convolution."""
    x, w, grad = (t.to(device, dtype).detach() for t in problem[1:])
    leaves = x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(*leaves, None, *problem.geometry)
    return [y, *torch.autograd.grad(y, leaves, grad)]


def errors(layer: Layer, device: str, dtype: torch.dtype) -> list[float]:
    """Errors of :func:`run_adder` against the float64 reference.

    Returns:
        Largest deviation over the largest value, of each tensor.
    """
    problem = Problem.random(layer)
    x, w, grad = (t.double() for t in problem[1:])
    expected = [
        reference.adder_conv2d(x, w, *problem.geometry),
        *reference.adder_conv2d_backward(grad, x, w, *problem.geometry)]
    return [((a.detach().double().cpu() - b).abs().max() /
             b.abs().max()).item()
            for a, b in zip(run_adder(problem, device, dtype), expected)]


def check(places: Sequence[tuple[str, torch.dtype]] = PLACES) -> None:
    """Print the errors of the CHECKED layers.

    Args:
        places: pairs of a device and a dtype.
    Raises:
        RuntimeError: one of them is too large.
    """
    print(f'{"relative error":18}{"on":18}'
          f'{"output":>10}{"grad_input":>12}{"grad_weight":>12}')
    for name, layer in CHECKED.items():
        for device, dtype in places:
            where = f'{device} {str(dtype).removeprefix("torch.")}'
            row = errors(layer, device, dtype)
            print(f'{name:18}{where:18}' + ''.join(
                f'{error:{width}.1e}' for error, width in zip(
                    row, (10, 12, 12))))
            if not max(row) < LIMITS[dtype]:
                raise RuntimeError(
                    f'{name} on {where}: error {max(row):.1e} is above '
                    f'{LIMITS[dtype]}')


def run_checked(device: str = 'cuda') -> None:
    """Run the CHECKED layers both ways: what compute-sanitizer watches."""
    for layer in CHECKED.values():
        for dtype in (torch.float32, torch.float16):
            run_adder(Problem.random(layer), device, dtype)


def sanitize() -> None:
    """Run three checks of compute-sanitizer, if it is there."""
    tool = shutil.which('compute-sanitizer')
    if tool is None:
        print('compute-sanitizer was not found: left out')
        return
    script = f'from {__name__} import run_checked; run_checked()'
    for name in ('memcheck', 'racecheck', 'synccheck'):
        subprocess.run(
            [tool, '--tool', name, '--error-exitcode', '1', sys.executable,
             '-c', script], check=True)
        print(f'compute-sanitizer {name}: nothing found')


# ------------------------------------------------------------------- time --


@functools.cache
def naive_kernels():
    """The compiled naive_adder.cu; takes a minute the first time."""
    # Where there is no GPU, its import says so.
    from torch.utils import cpp_extension
    return cpp_extension.load(
        'mmadder_naive_adder',
        [str(Path(__file__).with_name('naive_adder.cu'))])


class NaiveAdder(torch.autograd.Function):
    """(N, C * K * K, P), (C_out, C * K * K) to (N, C_out, P)."""

    @staticmethod
    def forward(ctx, columns, w):
        ctx.save_for_backward(columns, w)
        return naive_kernels().forward(columns.contiguous(), w)

    @staticmethod
    def backward(ctx, grad):
        columns, w = ctx.saved_tensors
        return tuple(naive_kernels().backward(
            grad.contiguous(), columns.contiguous(), w))


def naive(problem: Problem) -> Callable:
    """unfold, and one output per thread."""
    layer, x, w, _ = problem
    return lambda: NaiveAdder.apply(problem.unfold(x), w.flatten(1)).view(
        layer.batch, layer.out_channels, *layer.out_size)


MAKERS = {'conv2d': operators.conv2d, 'adder': operators.adder('auto'),
          'centered': operators.adder('auto', center=True), 'naive': naive,
          'cdist': operators.cdist}
WEIGHT_NORMS = {operators.BASELINE: operators.conv2d,
                **operators.GROUPS['weight_norm']}


def calls(problem: Problem, makers: dict[str, Callable] = MAKERS,
          ) -> dict[str, dict[str, Callable]]:
    """{direction: {candidate: callable}} of one layer.

    The backward calls give the gradients of x and w, of a forward pass that
    is run here. Those of 'weight_norm' are steps of AWN and of its other
    form, beside the forward of the convolution.
    """
    leaves = [t.clone().requires_grad_() for t in problem[1:3]]
    outputs = {name: make(problem._replace(x=leaves[0], w=leaves[1]))()
               for name, make in makers.items()}
    return dict(
        forward={name: make(problem) for name, make in makers.items()},
        backward={
            name: lambda y=y: torch.autograd.grad(
                y, leaves, problem.grad, retain_graph=True)
            for name, y in outputs.items()},
        weight_norm={
            name: make(problem) for name, make in WEIGHT_NORMS.items()})


def measure(layers: Sequence[Layer], rounds: int, device: str = 'cuda',
            sanitized: bool = True) -> dict:
    """Check, then time layers, and print both; :func:`require_gpu` before.

    Args:
        layers: what is timed.
        rounds: of :func:`mmadder.timing.median_times`.
        device: 'cpu' rehearses all but compute-sanitizer and the naive
            kernel.
        sanitized: False leaves compute-sanitizer out.
    Returns:
        {'without TF32', 'with TF32': {direction: {layer: {candidate:
        seconds}}}}, layers by name. TF32 is that of conv2d.
    Raises:
        RuntimeError: a result is wrong.
    """
    on_gpu = device == 'cuda'
    check(PLACES if on_gpu else [place for place in PLACES
                                 if place[0] == device])
    if sanitized and on_gpu:
        sanitize()
    makers = {name: make for name, make in MAKERS.items()
              if on_gpu or name != 'naive'}
    figures = {}
    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = tf32
        times = {}
        for layer in layers:
            for direction, candidates in calls(
                    Problem.random(layer, device), makers).items():
                times.setdefault(direction, {})[layer] = timing.median_times(
                    candidates, rounds,
                    synchronize=torch.cuda.synchronize if on_gpu else None)
        what = f'with{"" if tf32 else "out"} TF32'
        print(f'\n# float32, conv2d {what}', end='')
        for direction, results in times.items():
            print(*summary.ratio_table(
                f'{direction}: conv2d / this', results,
                [name for name in next(iter(results.values()))
                 if name != operators.BASELINE]),
                sep='\n', flush=True)
        figures[what] = {
            direction: {str(layer): row for layer, row in results.items()}
            for direction, results in times.items()}
    return figures
