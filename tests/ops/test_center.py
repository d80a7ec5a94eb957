"""Centered outputs: less the mean over the filters of a group."""
import pytest
import torch
import torch.nn.functional as F
from geometries import GEOMETRIES, Geometry
from hypothesis import given
from strategies import problems

from mmadder.ops import adder_conv2d, pack_weight, reference

GEOMETRIES = [g for g in GEOMETRIES if g.out_channels > g.groups] + [
    Geometry(1, 3, (5, 6), 70, (3, 3)), Geometry(2, 4, (6, 33), 130, (1, 1)),
    Geometry(1, 12, (6, 5), 50, (3, 2), groups=2)]
CENTER = dict(center=True)


def exact(x, w, geometry):
    return reference.adder_conv2d(
        x.double(), w.double(), *geometry.arguments, center=True)


def magnitude(x, w, geometry):
    """Distances, and their mean over the filters of the group."""
    distance = -reference.adder_conv2d(
        x.double(), w.double(), *geometry.arguments)
    filters = distance.unflatten(1, (geometry.groups, -1))
    return (filters + filters.mean(2, keepdim=True)).flatten(1, 2)


@pytest.mark.parametrize('mode', ['auto', 'exact', 'max'])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_value(geometry, mode):
    x, w, _ = geometry.tensors()
    y = adder_conv2d(x, w, None, *geometry.arguments, mode=mode, **CENTER)
    error = (y - exact(x, w, geometry)).abs() / magnitude(x, w, geometry)
    assert error.max() < (4e-6 if mode == 'auto' else 2e-5)
    sums = y.unflatten(1, (geometry.groups, -1)).sum(2)
    assert sums.abs().max() <= 1e-5 * magnitude(x, w, geometry).sum(1).max()


@given(problems().filter(lambda p: p[0].out_channels > p[0].groups))
def test_bound_that_auto_guards(problem):
    """4e-6 of the distance and its mean, whatever the tensors."""
    geometry, (x, w, _) = problem
    y = adder_conv2d(x, w, None, *geometry.arguments, **CENTER)
    error = (y - exact(x, w, geometry)).abs()
    assert (error <= 4e-6 * magnitude(x, w, geometry) + 1e-30).all()


def test_bias_comes_after():
    x, w, _ = GEOMETRIES[1].tensors()
    bias = torch.arange(16.)
    args = GEOMETRIES[1].arguments
    torch.testing.assert_close(
        adder_conv2d(x, w, bias, *args, **CENTER),
        adder_conv2d(x, w, None, *args, **CENTER) + bias.view(1, -1, 1, 1))


@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize('input_gradient', ['hardtanh', 'sign'])
def test_gradients(geometry, input_gradient):
    x, w, g = geometry.tensors()
    x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(x, w, None, *geometry.arguments,
                     input_gradient=input_gradient, **CENTER)
    found = torch.autograd.grad(y, (x, w), g)
    expected = reference.adder_conv2d_backward(
        g.double(), x.detach().double(), w.detach().double(),
        *geometry.arguments, input_gradient, True)
    for a, b in zip(found, expected):
        torch.testing.assert_close(
            a.double(), b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_centered_before_they_are_rounded(dtype):
    """Distances near 4000, differences near 1: half types hold the latter."""
    x = torch.full((1, 400, 2, 2), 10., dtype=dtype)
    w = torch.zeros(2, 400, 1, 1, dtype=dtype)
    w[1, 0] = 1  # distances 4000 and 3999
    y = adder_conv2d(x, w, **CENTER)
    assert y.dtype == dtype
    torch.testing.assert_close(y[0, :, 0, 0].float(),
                               torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('with_bias', [False, True])
def test_autocast_keeps_half_types(dtype, with_bias):
    """As a convolution: half in, half out, gradients of the inputs' types."""
    geometry = GEOMETRIES[2]
    x, w, g = geometry.tensors()
    bias = torch.randn(len(w)) if with_bias else None
    x.requires_grad_(), w.requires_grad_()
    with torch.autocast('cpu', dtype):
        y = adder_conv2d(x, w, bias, *geometry.arguments, **CENTER)
    assert y.dtype == dtype
    rounded = [t.detach().to(dtype).double() for t in (x, w)]
    expected = exact(*rounded, geometry)
    if with_bias:
        expected = expected + bias.view(1, -1, 1, 1)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=2 * step,
                               atol=step * expected.abs().max().item())
    y.backward(g.to(dtype))
    gradients = reference.adder_conv2d_backward(
        g.to(dtype).double(), *rounded, *geometry.arguments, center=True)
    for tensor, wanted in zip((x, w), gradients):
        assert tensor.grad.dtype == torch.float32
        torch.testing.assert_close(
            tensor.grad.double(), wanted, rtol=2 * step,
            atol=4 * step * wanted.abs().max().item())


def test_autocast_leaves_float64():
    x, w, _ = GEOMETRIES[2].tensors(torch.float64)
    with torch.autocast('cpu', torch.bfloat16):
        y = adder_conv2d(x, w, None, *GEOMETRIES[2].arguments, **CENTER)
    assert y.dtype == torch.float64


def test_float64_and_an_empty_batch():
    geometry = GEOMETRIES[2]
    x, w, _ = geometry.tensors(torch.float64)
    y = adder_conv2d(x, w, None, *geometry.arguments, **CENTER)
    torch.testing.assert_close(y, exact(x, w, geometry))
    none = adder_conv2d(x[:0], w, None, *geometry.arguments, **CENTER)
    assert none.shape == (0, *y.shape[1:])


def test_channels_last_and_strides():
    geometry = GEOMETRIES[2]
    x, w, _ = geometry.tensors()
    expected, most = exact(x, w, geometry), magnitude(x, w, geometry)
    for image in (x.to(memory_format=torch.channels_last),
                  F.pad(x, (1, 2))[..., 1:-2],
                  x.transpose(2, 3).contiguous().transpose(2, 3)):
        y = adder_conv2d(image, w, None, *geometry.arguments, **CENTER)
        assert ((y - expected).abs() <= 4e-6 * most).all()


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_fused(geometry):
    x, w, _ = geometry.tensors()
    mean, scale, bias = torch.randn(3, geometry.out_channels).unbind()
    residual = torch.randn(geometry.tensors()[2].shape)
    y = torch.ops.mmadder.adder_conv2d_fused(
        x, w, pack_weight(w, geometry.groups), mean, scale, bias, residual,
        True, *geometry.arguments, 'auto', True)
    mean, scale, bias = (v.double().view(1, -1, 1, 1)
                         for v in (mean, scale, bias))
    before = (exact(x, w, geometry) - mean) * scale + bias + residual.double()
    bound = 4e-6 * magnitude(x, w, geometry) * scale.abs()
    rounding = 1e-6 * (before.abs() + mean.abs() + bias.abs() + residual.abs())
    assert ((y - before.relu()).abs() <= bound + rounding).all()


@pytest.mark.parametrize('geometry', [
    *GEOMETRIES, Geometry(2, 130, (9, 8), 33, (3, 3), padding=(1, 1))])
def test_int8_is_exact(geometry):
    """C times the distance less their total: integers, rounded once."""
    generator = torch.Generator().manual_seed(1)
    x, w, _ = geometry.tensors()
    x, w = (torch.randint(0, 256, t.shape, generator=generator,
                          dtype=torch.uint8) for t in (x, w))
    zero, one = (torch.full((geometry.out_channels, ), v) for v in (0., 1.))
    y = torch.ops.mmadder.adder_conv2d_int8(
        x, w, pack_weight(w, geometry.groups), 1., 100, zero, one, zero,
        None, False, *geometry.arguments, True)
    per_group = geometry.out_channels // geometry.groups
    distance = -reference.adder_conv2d(
        x.double() - 100, w.double() - 100, *geometry.arguments)
    filters = distance.unflatten(1, (geometry.groups, -1))
    integers = (per_group * filters
                - filters.sum(2, keepdim=True)).flatten(1, 2)
    torch.testing.assert_close(
        y, integers.float() * torch.tensor(-1 / per_group),
        rtol=2e-7, atol=0)


@pytest.mark.parametrize('operator', ['plain', 'fused', 'int8'])
@pytest.mark.parametrize('geometry', [
    Geometry(1, 24, (20, 21), 40, (3, 3), (2, 1), (1, 1)),
    Geometry(1, 32, (3, 3), 72, (3, 3), padding=(1, 1))])
def test_threads_do_not_change_a_bit(operator, geometry):
    x, w, _ = geometry.tensors()
    norm = torch.randn(3, geometry.out_channels).unbind()
    codes = [(10 * t + 128).clamp(0, 255).to(torch.uint8) for t in (x, w)]
    ops, args = torch.ops.mmadder, geometry.arguments
    run = dict(
        plain=lambda: adder_conv2d(x, w, None, *args, **CENTER),
        fused=lambda: ops.adder_conv2d_fused(
            x, w, pack_weight(w), *norm, None, True, *args, 'auto', True),
        int8=lambda: ops.adder_conv2d_int8(
            *codes, pack_weight(codes[1]), 0.1, 128, *norm, None, True,
            *args, True))[operator]
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3, 7):
            torch.set_num_threads(n)
            results.append(run())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize('offset', [0., 1e4])
def test_auto_takes_the_exact_form_where_max_is_too_coarse(offset):
    """A filter equal to its window: centering must not hide it."""
    x = offset + torch.randn(1, 32, 3, 3)
    w = offset + torch.randn(4, 32, 3, 3)
    w[1] = x[0]
    y = adder_conv2d(x, w, **CENTER).double()
    geometry = Geometry(1, 32, (3, 3), 4, (3, 3))
    error = (y - exact(x, w, geometry)).abs() / magnitude(x, w, geometry)
    assert error.max() < 4e-6


def test_opcheck_and_compiled():
    geometry = GEOMETRIES[2]
    x, w, _ = geometry.tensors()
    x.requires_grad_(), w.requires_grad_()
    torch.library.opcheck(torch.ops.mmadder.adder_conv2d, (
        x, w, *geometry.arguments, 'auto', 'hardtanh', True))
    compiled = torch.compile(
        lambda x, w: adder_conv2d(x, w, None, *geometry.arguments, **CENTER),
        backend='aot_eager', fullgraph=True)
    for a, b in zip(
            torch.autograd.grad(compiled(x, w).square().sum(), (x, w)),
            torch.autograd.grad(adder_conv2d(
                x, w, None, *geometry.arguments,
                **CENTER).square().sum(), (x, w))):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('groups', [1, 6])
def test_one_filter_in_a_group_is_an_error(groups):
    x, w = torch.zeros(1, 6, 5, 5), torch.zeros(groups, 6 // groups, 3, 3)
    with pytest.raises(ValueError, match='center needs two filters or more '
                       f'in a group, got {groups} filters in {groups}'):
        adder_conv2d(x, w, groups=groups, **CENTER)


def test_int8_sums_that_overflow_are_an_error():
    w = torch.zeros(3000, 3000, 1, 1, dtype=torch.uint8)
    x = torch.zeros(1, 3000, 1, 1, dtype=torch.uint8)
    none = torch.zeros(3000)
    with pytest.raises(ValueError, match='3000 codes and 3000 filters, which '
                       'overflows 32 bits; leave this layer in float'):
        torch.ops.mmadder.adder_conv2d_int8(
            x, w, pack_weight(w), 1., 0, none, none, none, None, False,
            (1, 1), (0, 0), (1, 1), 1, True)
