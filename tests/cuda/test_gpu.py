"""The CUDA operators on a GPU: against the reference, the CPU, themselves."""
import shutil
import subprocess
import sys

import pytest
import torch
from geometries import GEOMETRIES, TILES, Geometry

from mmadder.layers import AdderConv2d
from mmadder.ops import adder_conv2d, reference
from mmadder.ops.extension import kernel_devices

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
    pytest.mark.skipif('cuda' not in kernel_devices(),
                       reason='mmadder was built without CUDA'),
]
BIG = [  # whole tiles, split depths, several waves
    Geometry(4, 256, (14, 14), 256, (3, 3), (1, 1), (1, 1)),
    Geometry(2, 512, (7, 7), 512, (3, 3), (1, 1), (1, 1)),
    Geometry(2, 64, (57, 55), 128, (3, 3), (2, 2), (1, 1)),
    Geometry(8, 64, (32, 32), 64, (1, 1)),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def run(x, w, g, arguments, form='hardtanh', **options):
    """Return output and both gradients."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = adder_conv2d(x, w, None, *arguments, input_gradient=form, **options)
    return y.detach(), *torch.autograd.grad(y, (x, w), g)


def assert_near(actual, expected, scale, tolerance):
    assert actual.is_cuda
    error = (actual.double().cpu() - expected).abs().max() / scale
    assert error < tolerance


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('form', ['hardtanh', 'sign'])
@pytest.mark.parametrize('geometry', GEOMETRIES + TILES + BIG)
def test_against_the_reference(geometry, form, dtype):
    x, w, g = geometry.tensors(dtype)
    actual = run(x.cuda(), w.cuda(), g.cuda(), geometry.arguments, form)
    x, w, g = x.double(), w.double(), g.double()
    terms = w[0].numel()
    exact = torch.finfo(dtype if dtype == torch.float64 else torch.float32)
    tolerance = 4 * exact.eps * max(terms, 4)**.5 + torch.finfo(dtype).eps
    y = reference.adder_conv2d(x, w, *geometry.arguments)
    grads = reference.adder_conv2d_backward(
        g, x, w, *geometry.arguments, form)
    assert_near(actual[0], y, y.abs().max(), tolerance)
    assert_near(actual[1], grads[0], g.abs().sum(1).max(), tolerance)
    assert_near(actual[2], grads[1], 4 * g.abs().sum((0, 2, 3)).max(),
                tolerance)
    assert all(t.dtype == dtype for t in actual)


@pytest.mark.parametrize('geometry', GEOMETRIES + BIG)
def test_as_on_the_cpu(geometry):
    tensors = geometry.tensors()
    cpu = run(*tensors, geometry.arguments)
    gpu = run(*(t.cuda() for t in tensors), geometry.arguments)
    for a, b in zip(gpu, cpu):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize('geometry', BIG)
def test_same_bits_each_time(geometry):
    tensors = [t.cuda() for t in geometry.tensors()]
    first = run(*tensors, geometry.arguments)
    for _ in range(3):
        for a, b in zip(first[:2], run(*tensors, geometry.arguments)):
            assert torch.equal(a, b)


@pytest.mark.parametrize('layout', [
    'channels_last', 'sliced', 'transposed', 'expanded', 'offset'])
def test_any_memory_layout(layout):
    x, w, g = (t.cuda() for t in BIG[0].tensors())
    dense = x
    if layout == 'channels_last':
        x = x.to(memory_format=torch.channels_last)
    elif layout == 'sliced':
        x = torch.randn(4, 512, 14, 28, device='cuda')[:, ::2, :, ::2]
        dense = x.contiguous()
    elif layout == 'transposed':
        x = x.transpose(2, 3)
        dense = x.contiguous()
    elif layout == 'expanded':
        x = x[:1, :1].expand_as(x)
        dense = x.contiguous()
    else:  # not aligned to a vector
        x = torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)
    for a, b in zip(run(x, w, g, BIG[0].arguments),
                    run(dense, w, g, BIG[0].arguments)):
        torch.testing.assert_close(a, b)


def test_nan_and_infinity():
    w = torch.randn(32, 32, 1, 1, device='cuda')
    x = torch.zeros(1, 32, 1, 4, device='cuda')
    x[0, 0, 0, 1], x[0, 1, 0, 2] = float('nan'), float('inf')
    y, grad, _ = run(x, w, torch.ones(1, 32, 1, 4, device='cuda'), ())
    assert y[..., 1].isnan().all() and y.isnan().sum() == 32
    assert (y[..., 2] == -float('inf')).all()
    assert grad[0, 0, 0, 1].isnan() and grad.isnan().sum() == 1
    assert grad[0, 1, 0, 2] == -32


def test_empty_batch():
    x = torch.zeros(0, 4, 8, 8, device='cuda', requires_grad=True)
    w = torch.randn(6, 4, 3, 3, device='cuda', requires_grad=True)
    adder_conv2d(x, w, padding=1).sum().backward()
    assert x.grad.shape == x.shape and w.grad.abs().sum() == 0


def test_max_mode_is_refused():
    x, w, _ = (t.cuda() for t in BIG[3].tensors())
    with pytest.raises(ValueError, match="mode='max' has no CUDA kernel.*'ex"):
        adder_conv2d(x, w, mode='max')
    torch.testing.assert_close(
        adder_conv2d(x, w, mode='exact'), adder_conv2d(x, w))


@pytest.fixture
def conv_precision():
    """Set the precision of cuDNN's convolutions for one test."""
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    yield conv
    conv.fp32_precision = before


@pytest.mark.parametrize('value', ['tf32', 'ieee'])
def test_weight_gradient_ignores_tf32(value, conv_precision):
    conv_precision.fp32_precision = value
    tensors = BIG[0].tensors()
    grad = run(*(t.cuda() for t in tensors), BIG[0].arguments)[2]
    x, w, g = (t.double() for t in tensors)
    expected = reference.adder_conv2d_backward(
        g, x, w, *BIG[0].arguments)[1]
    assert_near(grad, expected, expected.abs().max(), 2e-5)
    assert conv_precision.fp32_precision == value


def test_runs_on_the_current_stream():
    x, w, _ = (t.cuda() for t in BIG[0].tensors())
    expected = adder_conv2d(x, w, padding=1)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)  # what runs on another stream overtakes
        late = x * 1
        y = adder_conv2d(late, w, padding=1)
    stream.synchronize()
    assert torch.equal(y, expected)


def test_cuda_graph():
    x, w, _ = (t.cuda() for t in BIG[0].tensors())
    adder_conv2d(x, w, padding=1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = adder_conv2d(x, w, padding=1)
    x.mul_(0.5)
    graph.replay()
    assert torch.equal(y, adder_conv2d(x, w, padding=1))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two GPUs')
def test_second_device():
    x, w, _ = (t.to('cuda:1') for t in BIG[0].tensors())
    y = adder_conv2d(x, w, padding=1)
    assert y.device == x.device
    torch.testing.assert_close(
        y.cpu(), adder_conv2d(x.cpu(), w.cpu(), padding=1))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_computes_in_float32(dtype):
    x, w, g = (t.cuda() for t in BIG[0].tensors())
    with torch.autocast('cuda', dtype=dtype):
        y = adder_conv2d(x.to(dtype), w, padding=1)
    assert y.dtype == torch.float32
    torch.testing.assert_close(
        y, adder_conv2d(x.to(dtype).float(), w, padding=1))


def test_compiled_layer():
    layer = AdderConv2d(16, 32, 3, padding=1, weight_norm='AWN').cuda()
    x = torch.randn(2, 16, 9, 9, device='cuda')
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.slow
def test_more_than_2_to_the_31_elements():
    if torch.cuda.mem_get_info()[0] < 30e9:
        pytest.skip('needs 30 GB of free GPU memory')
    x = torch.randn(1, 16, 3, 3, device='cuda', dtype=torch.float16)
    many = x.expand(16_000_000, -1, -1, -1).contiguous()  # 2.3e9 elements
    w = torch.randn(8, 16, 3, 3, device='cuda', dtype=torch.float16)
    y = adder_conv2d(many, w)
    assert (y == adder_conv2d(x, w)).all()


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['memcheck', 'racecheck', 'synccheck'])
def test_compute_sanitizer(tool):
    sanitizer = shutil.which('compute-sanitizer')
    if sanitizer is None:
        pytest.skip('compute-sanitizer was not found')
    script = (
        'import torch; from mmadder.ops import adder_conv2d\n'
        'for c, m in ((16, 40), (64, 130), (17, 24)):\n'
        '    x = torch.randn(2, c, 9, 9, device="cuda", requires_grad=True)\n'
        '    w = torch.randn(m, c, 3, 3, device="cuda", requires_grad=True)\n'
        '    adder_conv2d(x, w, padding=1).sum().backward()\n')
    result = subprocess.run(
        [sanitizer, '--tool', tool, '--error-exitcode', '1', sys.executable,
         '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
