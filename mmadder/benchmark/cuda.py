"""The part of tools/benchmark.py that needs a GPU.

First correctness: values and gradients on the GPU against the CPU and the
float64 reference, and compute-sanitizer where it is installed. Then the time
of each ResNet-18 layer beside cuDNN's convolution, a naive adder kernel
(naive_adder.cu) and unfold + cdist.
"""
import json
import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.modules.utils import _pair
from torch.utils import cpp_extension

from mmadder.errors import InputError
from mmadder.ops import adder_conv2d, reference
from mmadder.ops.extension import kernel_devices

# (in channels, in size, out channels, kernel, stride, groups)
CHECKED = {
    'tails of tiles': (48, 13, 130, 3, 2, 1),
    'few channels': (3, 17, 20, 5, 1, 1),
    'groups': (32, 12, 48, 3, 1, 2),
    'depthwise': (24, 9, 24, 3, 1, 24),
    '1x1 with stride': (64, 14, 128, 1, 2, 1),
}
SANITIZED = """
import torch
from mmadder.ops import adder_conv2d
for channels, size, filters, kernel, stride, groups in {shapes}:
    for dtype in (torch.float32, torch.float16):
        x = torch.randn(2, channels, size, size, device='cuda', dtype=dtype,
                        requires_grad=True)
        w = torch.randn(filters, channels // groups, kernel, kernel,
                        device='cuda', dtype=dtype, requires_grad=True)
        adder_conv2d(x, w, None, stride, kernel // 2, 1, groups).sum(
            ).backward()
torch.cuda.synchronize()
"""


def require_gpu():
    """Raise InputError with advice unless CUDA kernels can run here."""
    if 'cuda' not in kernel_devices():
        raise InputError(
            '--device cuda: mmadder was built without CUDA; build it with '
            '`MMADDER_CUDA=1 pip install -e . --no-build-isolation`')
    if not torch.cuda.is_available():
        raise InputError(
            '--device cuda: torch finds no GPU on this machine')


def relative_error(actual, expected):
    actual, expected = actual.detach().double().cpu(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def draw(batch, in_channels, size, out_channels, kernel, groups=1):
    """Input after a ReLU and weight, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, in_channels, *_pair(size), generator=generator)
    w = torch.randn(out_channels, in_channels // groups, kernel, kernel,
                    generator=generator)
    return x.relu(), w


def errors(layer):
    """Errors of output and both gradients, by dtype and on the CPU."""
    in_channels, size, out_channels, kernel, stride, groups = layer
    x, w = draw(2, in_channels, size, out_channels, kernel, groups)
    args = (stride, kernel // 2, 1, groups)
    y64 = reference.adder_conv2d(x.double(), w.double(), *args)
    g = torch.randn(y64.shape, generator=torch.Generator().manual_seed(1))
    expected = [y64, *reference.adder_conv2d_backward(
        g.double(), x.double(), w.double(), *args)]
    rows = {}
    for device, dtype in (('cpu', torch.float32), ('cuda', torch.float32),
                          ('cuda', torch.float16), ('cuda', torch.bfloat16)):
        leaves = [t.to(device, dtype).requires_grad_() for t in (x, w)]
        y = adder_conv2d(*leaves, None, *args)
        grads = torch.autograd.grad(y, leaves, g.to(device, dtype))
        rows[f'{device} {str(dtype)[6:]}'] = [
            relative_error(a, b) for a, b in zip((y, *grads), expected)]
    return rows


def check():
    """Print errors; raise RuntimeError if one is too large."""
    limits = dict(float32=1e-4, float16=2e-2, bfloat16=1e-1)
    print(f'{"relative error":18}{"on":18}'
          f'{"output":>10}{"grad_input":>12}{"grad_weight":>12}')
    for name, layer in CHECKED.items():
        for where, row in errors(layer).items():
            print(f'{name:18}{where:18}' + ''.join(
                f'{error:{width}.1e}' for error, width in zip(
                    row, (10, 12, 12))))
            limit = limits[where.split()[1]]
            if not max(row) < limit:
                raise RuntimeError(
                    f'{name} on {where}: error {max(row):.1e} is above '
                    f'{limit}')


def sanitize():
    """Run compute-sanitizer's memcheck and racecheck, if it is there."""
    tool = shutil.which('compute-sanitizer')
    if tool is None:
        print('compute-sanitizer was not found: left out')
        return
    script = SANITIZED.format(shapes=list(CHECKED.values()))
    for check in ('memcheck', 'racecheck', 'synccheck'):
        subprocess.run(
            [tool, '--tool', check, '--error-exitcode', '1', sys.executable,
             '-c', script], check=True)
        print(f'compute-sanitizer {check}: nothing found')


class NaiveAdder(torch.autograd.Function):
    """unfold, and one output per thread."""
    kernels = None

    @classmethod
    def conv2d(cls, x, w, stride, padding):
        size = [(extent + 2 * padding - w.shape[-1]) // stride + 1
                for extent in x.shape[2:]]
        columns = F.unfold(x, w.shape[2:], stride=stride, padding=padding)
        y = cls.apply(columns, w.flatten(1))
        return y.view(len(x), len(w), *size)

    @staticmethod
    def forward(ctx, columns, w):
        ctx.save_for_backward(columns, w)
        return NaiveAdder.kernels.forward(columns.contiguous(), w)

    @staticmethod
    def backward(ctx, grad):
        columns, w = ctx.saved_tensors
        return tuple(NaiveAdder.kernels.backward(
            grad.contiguous(), columns.contiguous(), w))


def cdist_conv2d(x, w, stride, padding):
    size = [(extent + 2 * padding - w.shape[-1]) // stride + 1
            for extent in x.shape[2:]]
    columns = F.unfold(x, w.shape[2:], stride=stride, padding=padding)
    y = -torch.cdist(columns.transpose(1, 2), w.flatten(1), p=1)
    return y.transpose(1, 2).reshape(len(x), len(w), *size)


def median_ms(calls, rounds):
    """Median milliseconds of each call, in turn, by events on the GPU."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True)
                          for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end))
    return {name: statistics.median(taken) for name, taken in times.items()}


def time_layer(rounds, layer):
    """{'forward': {candidate: ms}, 'backward': ...} of one layer."""
    x, w = (t.cuda().requires_grad_() for t in draw(*layer[:-1]))
    stride, padding = layer.stride, layer.padding
    layers = dict(
        adder=lambda: adder_conv2d(x, w, None, stride, padding),
        conv2d=lambda: F.conv2d(x, w, None, stride, padding),
        naive=lambda: NaiveAdder.conv2d(x, w, stride, padding),
        cdist=lambda: cdist_conv2d(x, w, stride, padding))
    with torch.no_grad():
        forward = median_ms(layers, rounds)
    outputs = {name: layer() for name, layer in layers.items()}
    grad = torch.randn_like(outputs['adder'])
    backward = median_ms({
        name: lambda y=y: torch.autograd.grad(
            y, (x, w), grad, retain_graph=True)
        for name, y in outputs.items()}, rounds)
    return dict(forward=forward, backward=backward)


def main(layers, rounds, json_file=None):
    """Check, then time layers (mmadder.benchmark.shapes.Layer).

    Raises:
        SystemExit: no GPU, or a build without CUDA; the message says so.
        RuntimeError: a result is wrong.
    """
    try:
        require_gpu()
    except InputError as error:
        sys.exit(str(error))
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, '
          f'cuDNN {torch.backends.cudnn.version()}')
    check()
    sanitize()
    NaiveAdder.kernels = cpp_extension.load(
        'mmadder_naive_adder',
        [str(Path(__file__).with_name('naive_adder.cu'))])
    results = {}
    for tf32 in (False, True):
        torch.backends.cudnn.allow_tf32 = tf32
        print('\nfloat32, conv2d '
              f'{"with" if tf32 else "without"} TF32; times of others / ours')
        for direction in ('forward', 'backward'):
            print(f'{direction:28}{"adder ms":>10}{"conv2d":>10}{"naive":>10}'
                  f'{"cdist":>10}')
            ratios = []
            for layer in layers:
                name = str(layer)
                key = f'{name}, TF32 {tf32}'
                if key not in results:
                    results[key] = time_layer(rounds, layer)
                ms = results[key][direction]
                ratios.append([ms[peer] / ms['adder'] for peer in (
                    'conv2d', 'naive', 'cdist')])
                print(f'{name:28}{ms["adder"]:10.3f}' + ''.join(
                    f'{ratio:10.2f}' for ratio in ratios[-1]))
            means = [math.exp(statistics.fmean(map(math.log, column)))
                     for column in zip(*ratios)]
            print(f'{"geometric mean":28}{"":10}' + ''.join(
                f'{mean:10.2f}' for mean in means))
    if json_file:
        Path(json_file).write_text(json.dumps(
            dict(gpu=torch.cuda.get_device_name(), milliseconds=results),
            indent=1))
