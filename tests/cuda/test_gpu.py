"""The CUDA operators on a GPU: against the reference, the CPU, themselves."""
import copy
import shutil
import subprocess
import sys

import pytest
import torch
from geometries import GEOMETRIES, TILES, Geometry
from settling import relative_error, settle
from torch import nn

from mmadder.inference import fuse_adder_bn
from mmadder.layers import AdderConv2d
from mmadder.models import AdderResNet
from mmadder.ops import adder_conv2d, pack_weight, reference
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


def test_cuda_graph_of_a_training_step():
    """Nothing waits for the host; new pictures go where the old ones were."""

    def step(model, optimizer, x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    torch.manual_seed(0)
    model = nn.Sequential(
        AdderConv2d(16, 32, 3, padding=1, weight_norm='AWN', center=True),
        nn.BatchNorm2d(32), nn.ReLU(), AdderConv2d(32, 10, 3), nn.Flatten(2),
        nn.BatchNorm1d(10)).cuda()
    twin = copy.deepcopy(model)
    optimizer, twins = (torch.optim.SGD(m.parameters(), 0.1, momentum=0.9)
                        for m in (model, twin))
    x, *others = torch.randn(4, 8, 16, 9, 9, device='cuda').unbind()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as CUDA graphs ask for
        for _ in range(3):
            step(model, optimizer, x)
            step(twin, twins, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        loss = step(model, optimizer, x)
    for other in others:
        x.copy_(other)
        graph.replay()
        expected = step(twin, twins, other)
        torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_keeps_half_types_of_centered_adders(dtype):
    x, w, g = BIG[0].tensors()
    results = []
    for device, kind in (('cuda', dtype), ('cpu', torch.float32)):
        args = [t.to(dtype).to(device, kind).requires_grad_() for t in (x, w)]
        with torch.autocast(device, dtype, enabled=kind == dtype):
            y = adder_conv2d(*args, padding=1, center=True)
        assert y.dtype == kind
        y.backward(g.to(dtype).to(device, kind))
        results.append([y, *(t.grad for t in args)])
    for actual, expected in zip(*results):
        torch.testing.assert_close(
            actual.float().cpu(), expected, rtol=0,
            atol=8 * torch.finfo(dtype).eps * expected.abs().max().item())


def test_compiled_layer():
    layer = AdderConv2d(16, 32, 3, padding=1, weight_norm='AWN').cuda()
    x = torch.randn(2, 16, 9, 9, device='cuda')
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


# ------------------------------------------------------------- inference --


def fused_arguments(geometry, shortcut=True, relu=True):
    """Random tensors on the CPU; all arguments but the weight's packed one."""
    x, w, residual = geometry.tensors()
    generator = torch.Generator().manual_seed(1)
    norm = torch.randn(3, geometry.out_channels, generator=generator)
    return [x, w, *norm, residual if shortcut else None, relu]


def run_fused(geometry, arguments, center=False):
    x, w, *rest = (t.cuda() if isinstance(t, torch.Tensor) else t
                   for t in arguments)
    return torch.ops.mmadder.adder_conv2d_fused(
        x, w, pack_weight(w, geometry.groups), *rest, *geometry.arguments,
        'auto', center)


@pytest.mark.parametrize('relu, shortcut', [
    (False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('geometry', GEOMETRIES + TILES + BIG)
def test_fused_against_the_reference(geometry, center, shortcut, relu):
    if center and geometry.out_channels == geometry.groups:
        pytest.skip('zero once centered')
    arguments = fused_arguments(geometry, shortcut, relu)
    x, w, mean, scale, bias = (
        t.double().view(t.shape if t.dim() == 4 else (-1, 1, 1))
        for t in arguments[:5])
    distances = reference.adder_conv2d(x, w, *geometry.arguments)
    sums = reference.adder_conv2d(
        x, w, *geometry.arguments, center=True) if center else distances
    expected = (sums - mean) * scale + bias
    expected += arguments[5].double() if shortcut else 0
    expected = expected.relu() if relu else expected
    y = run_fused(geometry, arguments, center)
    assert y.dtype == torch.float32
    assert_near(y, expected, 2 * distances.abs().max() * scale.abs().max() +
                bias.abs().max() + 5, 1e-6 * max(w[0].numel(), 4)**.5)


def launches(function):
    """Kernels that a second call starts."""
    function()
    with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    return [e.name for e in profile.events() if e.device_type == cuda]


@pytest.mark.parametrize('geometry, center, count', [
    (BIG[3], False, 1), (BIG[3], True, 1),
    # More filters than a tile has rows.
    (Geometry(8, 64, (32, 32), 256, (1, 1)), True, 2)])
def test_fused_is_one_launch(geometry, center, count):
    arguments = [t.cuda() if isinstance(t, torch.Tensor) else t
                 for t in fused_arguments(geometry)]
    packed = pack_weight(arguments[1], geometry.groups)
    names = launches(lambda: torch.ops.mmadder.adder_conv2d_fused(
        *arguments[:2], packed, *arguments[2:], *geometry.arguments, 'auto',
        center))
    assert len(names) == count, names


@pytest.mark.parametrize('center', [False, True])
def test_fused_residual_anywhere_in_memory(center):
    """Vectors of four are read, whatever its address and strides are."""
    arguments = fused_arguments(BIG[3])
    expected = run_fused(BIG[3], arguments, center)
    arguments[5] = arguments[5].cuda()
    for residual in (
            torch.cat([arguments[5].new_zeros(1), arguments[5].flatten()])[1:]
            .view_as(arguments[5]),
            arguments[5].to(memory_format=torch.channels_last)):
        arguments[5] = residual
        assert torch.equal(run_fused(BIG[3], arguments, center), expected)


@pytest.mark.parametrize('change, message', [
    ({0: torch.zeros(8, 64, 32, 32, dtype=torch.float16)},
     'input must be float32 on cuda:0, got Half'),
    ({2: torch.zeros(5)}, r'mean has shape \[5\], expected \[64\]'),
    ({3: torch.zeros(64).double()}, 'scale must be float32 on cuda:0'),
    ({5: torch.zeros(1)}, 'residual has shape'),
])
def test_fused_errors(change, message):
    arguments = fused_arguments(BIG[3])
    for place, value in change.items():
        arguments[place] = value
    with pytest.raises((ValueError, RuntimeError), match=message):
        run_fused(BIG[3], arguments)


def test_fused_errors_of_packed_weight_mode_and_device():
    x, w, *rest = (t.cuda() if isinstance(t, torch.Tensor) else t
                   for t in fused_arguments(BIG[3]))
    fused = torch.ops.mmadder.adder_conv2d_fused
    packed = pack_weight(w)
    with pytest.raises(ValueError, match='packed_weight has shape'):
        fused(x, w, packed[1:], *rest, *BIG[3].arguments, 'auto')
    with pytest.raises(ValueError, match="mode='max' has no CUDA kernel"):
        fused(x, w, packed, *rest, *BIG[3].arguments, 'max')
    with pytest.raises(RuntimeError, match='mean must be float32 on cuda:0, '
                       'got Float on cpu'):
        fused(x, w, packed, rest[0].cpu(), *rest[1:], *BIG[3].arguments,
              'auto')
    with pytest.raises(RuntimeError, match='weight must be float32 on cuda'):
        pack_weight(w.to(torch.uint8))


@pytest.mark.parametrize('center', [False, True])
def test_fused_model(center):
    """The same as the model, and as on the CPU; also compiled."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64, 64)
    model = settle(AdderResNet(18, conv_cfg=dict(
        type='AdderConv2d', weight_norm='AWN', center=center)), x)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        expected, = fused(x)
        fused, model = fused.cuda(), model.cuda()
        compiled = torch.compile(fuse_adder_bn(model), fullgraph=True)
        for other in (fused, model, compiled):
            actual, = other(x.cuda())
            assert relative_error(actual.cpu(), expected.double()) < 1e-3


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
def test_fused_more_than_2_to_the_31_elements():
    """Of partial results too, as 136 centered filters need them."""
    if torch.cuda.mem_get_info()[0] < 45e9:
        pytest.skip('needs 45 GB of free GPU memory')
    geometry = Geometry(1, 2, (3, 3), 136, (1, 1))
    x, w, *norm, residual, relu = fused_arguments(geometry)
    many = [t.expand(2_000_000, -1, -1, -1) for t in (x, residual)]
    expected = run_fused(geometry, [x, w, *norm, residual, relu], True)
    y = run_fused(geometry, [many[0], w, *norm, many[1], relu], True)
    assert (y == expected).all()


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
        '    adder_conv2d(x, w, padding=1).sum().backward()\n'
        '    end = torch.ones(3, m, device="cuda")\n'
        '    y = torch.zeros(2, m, 9, 9, device="cuda")\n'
        '    for center in (False, True):\n'
        '        torch.ops.mmadder.adder_conv2d_fused(\n'
        '            x, w, torch.ops.mmadder.adder_conv2d_pack_weight(w, 1),\n'
        '            *end, y, True, (1, 1), (1, 1), (1, 1), 1, "auto", '
        'center)\n')
    result = subprocess.run(
        [sanitizer, '--tool', tool, '--error-exitcode', '1', sys.executable,
         '-c', script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
