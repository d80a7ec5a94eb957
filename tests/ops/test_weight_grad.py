"""The weight gradient and cuDNN's TF32, a setting of the whole process."""
import os
import subprocess
import sys
import threading

import pytest
import torch
from geometries import GEOMETRIES, Geometry
from strategies import LAYOUTS

from mmadder.ops import reference
from mmadder.ops.extension import BINARY

CONV = torch.backends.cudnn.conv
OPERATOR = torch.ops.mmadder.adder_conv2d_weight_grad

# Without the package, whose other parts take seconds to import.
WEIGHT_GRAD = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
exec(sys.argv[2])
x, w = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
found = torch.ops.mmadder.adder_conv2d_weight_grad(
    torch.rand(2, 4, 4, 4), x, w, [1, 1], [0, 0], [1, 1], 1)
assert found.abs().sum() > 0
"""


# oneDNN writes behind the end of its memory in nn.Conv2d's own backward.
OVERRUN = """
import sys
import torch
torch.ops.load_library(sys.argv[1])
for channels in 1, 2:
    x, w = torch.rand(2, channels, 14, 1), torch.rand(7, channels, 1, 1)
    last = [t.to(memory_format=torch.channels_last) for t in (x, w)]
    for x, w in (last[0], w), (x, last[1]), last:
        for _ in range(40):
            torch.ops.mmadder.adder_conv2d_weight_grad(
                torch.rand(2, 7, 7, 1), x, w, [2, 1], [0, 0], [1, 1], 1)
"""


def test_memory_is_whole_behind_strided_windows_of_one_pixel():
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', OVERRUN, BINARY],
        env=dict(os.environ, MALLOC_CHECK_='3',  # aborts at once
                 LD_PRELOAD='libc_malloc_debug.so.0'),
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('batch', [0, 2])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_strides_are_those_that_a_graph_expects(layout, batch):
    """torch.compile refused channels_last: other strides than the fake's."""
    for kernel in (1, 1), (3, 1), (3, 3):
        x, w, g = Geometry(batch or 1, 5, (6, 4), 3, kernel).tensors()
        x, w, g = (layout(t)[:batch] if t is not w else layout(t)
                   for t in (x, w, g))
        found = OPERATOR(g, x, w, (1, 1), (0, 0), (1, 1), 1)
        assert found.stride() == torch.empty(w.shape).stride()


@pytest.mark.parametrize('setting', [
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
    "torch.backends.cudnn.conv.fp32_precision = 'none'",
    "torch.backends.fp32_precision = 'tf32'",
    'torch.backends.cudnn.allow_tf32 = False',
])
def test_runs_with_any_precision_set(setting):
    """Torch's older function raises if the newer settings were used."""
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', WEIGHT_GRAD, BINARY, setting],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def precision():
    """Set the precision of cuDNN's convolutions for one test."""
    before = CONV.fp32_precision
    yield lambda value: setattr(CONV, 'fp32_precision', value)
    CONV.fp32_precision = before


def test_threads_on_the_cpu_do_not_touch_the_setting(precision):
    precision('tf32')
    x, w, g = Geometry(8, 64, (40, 40), 64, (3, 3)).tensors()
    threads = [threading.Thread(target=lambda: [
        OPERATOR(g, x, w, (1, 1), (0, 0), (1, 1), 1) for _ in range(10)])
        for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(CONV.fp32_precision)
    assert seen == {'tf32'}


# ---------------------------------------------------- as it is on a GPU --


def call_cuda_kernel(*arguments):
    """Call what is registered for CUDA, with tensors of the CPU."""
    return OPERATOR.default.redispatch(
        torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), *arguments)


@pytest.fixture
def during_convolution():
    """Functions to be called inside of convolution_backward."""
    calls = []

    def convolution_backward(grad, input, weight, *arguments):
        for call in calls:
            call()
        return None, torch.zeros_like(weight), None

    with torch.library._scoped_library('aten', 'IMPL') as library:
        library.impl('convolution_backward', convolution_backward, 'CPU')
        yield calls


def arguments(geometry=GEOMETRIES[2]):
    x, w, g = geometry.tensors()
    return g, x, w, *geometry.arguments


@pytest.mark.parametrize('value, inside', [
    ('tf32', 'ieee'), ('ieee', 'ieee'), ('none', 'none')])
def test_cuda_runs_without_tf32(during_convolution, precision, value, inside):
    precision(value)
    seen = []
    during_convolution.append(lambda: seen.append(CONV.fp32_precision))
    call_cuda_kernel(*arguments())
    assert seen == [inside]
    assert CONV.fp32_precision == value


def test_cuda_restores_the_setting_after_an_error(
        during_convolution, precision):
    precision('tf32')

    def fail():
        raise MemoryError('no workspace')

    during_convolution.append(fail)
    with pytest.raises(MemoryError, match='no workspace'):
        call_cuda_kernel(*arguments())
    assert CONV.fp32_precision == 'tf32'


def test_cuda_threads_take_turns(during_convolution, precision):
    """Else the first one to end gives TF32 back to the others."""
    precision('tf32')
    seen, inside, most = [], [], []

    def look():
        inside.append(None)
        most.append(len(inside))
        for _ in range(20):
            seen.append(CONV.fp32_precision)
            threading.Event().wait(.001)  # the other threads run
        inside.pop()

    during_convolution.append(look)
    threads = [threading.Thread(target=call_cuda_kernel, args=arguments())
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {'ieee'} and len(seen) == 80
    assert max(most) == 1
    assert CONV.fp32_precision == 'tf32'


def test_cuda_kernel_has_the_value():
    x, w, g = GEOMETRIES[2].tensors(torch.float64)
    grad = call_cuda_kernel(g, x, w, *GEOMETRIES[2].arguments)
    _, expected = reference.adder_conv2d_backward(
        g, x, w, *GEOMETRIES[2].arguments)
    torch.testing.assert_close(grad, expected)
