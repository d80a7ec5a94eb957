"""Values and shapes at the edge: denormals, NaN, infinity, empty, huge."""
import math

import pytest
import torch
from geometries import Geometry

from mmadder.ops import adder_conv2d, reference

MODES = ['auto', 'exact', 'max']
OPS = torch.ops.mmadder


# ---------------------------------------------------------------- values --


@pytest.mark.parametrize('mode', MODES)
def test_denormals_are_not_flushed(mode):
    """Sums of denormals are multiples of the smallest one, hence exact; the
    max form halves some of them first."""
    smallest = 2.**-149
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randint(-999, 999, shape, generator=generator) * smallest
            for shape in ((1, 18, 5, 6), (17, 18, 3, 3)))
    y = adder_conv2d(x, w, padding=1, mode=mode)
    expected = reference.adder_conv2d(x.double(), w.double(), padding=1)
    assert 0 < y.abs().max() < torch.finfo(torch.float32).tiny
    terms = 0 if mode == 'exact' else 162
    assert (y.double() - expected).abs().max() <= terms * smallest


def test_gradients_of_denormals():
    x, w = torch.full((1, 1, 1, 1), 2e-40), torch.full((1, 1, 1, 1), 5e-40)
    one = torch.ones(1, 1, 1, 1)
    arguments = (one, x, w, (1, 1), (0, 0), (1, 1), 1)
    assert OPS.adder_conv2d_input_grad(*arguments, 'sign') == 1
    assert OPS.adder_conv2d_input_grad(*arguments, 'hardtanh') == w - x


@pytest.mark.parametrize('mode', MODES)
def test_signed_zeros_are_zero(mode):
    x = torch.tensor([0., -0.]).view(1, 1, 1, 2)
    for zero in (0., -0.):
        w = torch.full((1, 1, 1, 1), zero)
        assert (adder_conv2d(x, w, mode=mode) == 0).all()
        grad = OPS.adder_conv2d_input_grad(
            torch.ones_like(x), x, w, (1, 1), (0, 0), (1, 1), 1, 'sign')
        assert (grad == 0).all()


def _seen(marked, weight, padding):
    """Outputs (1, 1, H, W) whose window holds a marked input."""
    return torch.nn.functional.conv2d(
        marked.any(1, keepdim=True).float(),
        torch.ones(1, 1, *weight.shape[2:]), padding=padding) > 0


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('mode', MODES)
def test_a_value_that_is_not_finite_stays_in_its_windows(mode, value):
    """It spreads neither to other windows nor to other images.

    The exact form scores infinity with minus infinity; the max form may say
    NaN; nothing may hide it.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 35, 9, 21, generator=generator)
    w = torch.randn(18, 35, 3, 2, generator=generator)
    clean = adder_conv2d(x, w, padding=1, mode=mode)
    x[1, 34, 4, 11] = value
    y = adder_conv2d(x, w, padding=1, mode=mode)
    seen = _seen(~x.isfinite(), w, 1).expand_as(y)
    assert seen.sum() == 6 * 18
    assert torch.equal(seen, ~y.isfinite())
    torch.testing.assert_close(y[~seen], clean[~seen], rtol=1e-5, atol=1e-4)
    if math.isnan(value):
        assert y[seen].isnan().all()
    elif mode == 'exact':
        assert (y[seen] == -math.inf).all()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('mode', MODES)
def test_a_weight_that_is_not_finite_stays_in_its_channel(mode, value):
    x, w, _ = Geometry(2, 5, (6, 7), 19, (3, 3)).tensors()
    w[17, 4, 1, 2] = value
    y = adder_conv2d(x, w, mode=mode)
    assert not y[:, 17].isfinite().any()
    assert y[:, :17].isfinite().all() and y[:, 18:].isfinite().all()
    if math.isnan(value):
        assert y[:, 17].isnan().all()
    elif mode == 'exact':
        assert (y[:, 17] == -math.inf).all()


@pytest.mark.parametrize('form', ['hardtanh', 'sign'])
@pytest.mark.parametrize('operand', [0, 1, 2])
def test_input_gradient_shows_nan(form, operand):
    """In both forms, though torch.sign(NaN) is 0."""
    geometry = Geometry(2, 19, (6, 7), 21, (3, 3), padding=(1, 1))
    x, w, g = tensors = geometry.tensors()
    tensors[operand][1, -1, 1, 1] = math.nan
    grad = OPS.adder_conv2d_input_grad(g, x, w, *geometry.arguments, form)
    clipped, _ = reference.adder_conv2d_backward(
        g, x, w, *geometry.arguments)
    expected, _ = reference.adder_conv2d_backward(
        g, x, w, *geometry.arguments, form)
    expected[clipped.isnan()] = math.nan
    assert expected.isnan().any() and not expected.isnan().all()
    torch.testing.assert_close(
        grad, expected, rtol=1e-4, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize('offset, spread', [(3, .1), (1e3, 1.), (-1e4, 1.)])
@pytest.mark.filterwarnings('ignore')  # of the fall-back to the exact form
def test_auto_is_accurate_where_inputs_and_weights_share_an_offset(
        offset, spread):
    """sum max(x, w) loses all digits there."""
    x, w, _ = Geometry(2, 64, (6, 5), 20, (3, 3)).tensors(torch.float64)
    x, w = ((offset + spread * t).float() for t in (x, w))
    y = adder_conv2d(x, w, mode='auto').double()
    expected = reference.adder_conv2d(x.double(), w.double())
    assert ((y - expected) / expected).abs().max() < 2e-5


# ---------------------------------------------------------------- shapes --


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('geometry', [
    Geometry(1, 4099, (2, 3), 5, (1, 1)),
    Geometry(1, 3, (3, 2), 4100, (2, 2)),
    Geometry(1, 1100, (3, 3), 130, (3, 3), padding=(1, 1)),
    Geometry(2, 515, (4, 4), 515, (3, 3), groups=515),
    Geometry(1, 1, (1, 4000), 1, (1, 7), padding=(0, 3)),
    Geometry(1, 1, (3000, 1), 2, (7, 1), (2, 1), (3, 0)),
    Geometry(300, 2, (1, 1), 3, (1, 1)),
    Geometry(1, 1, (1, 1), 1, (9, 8), padding=(4, 4)),
    Geometry(2, 2, (1, 1), 2, (3, 3), (7, 9), (8, 10)),
    Geometry(1, 2, (60, 60), 2, (31, 29)),
])
def test_extreme_shapes(geometry, mode):
    x, w, g = geometry.tensors()
    x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(x, w, None, *geometry.arguments, mode=mode)
    grads = torch.autograd.grad(y, (x, w), g)
    x, w, g = (t.detach().double() for t in (x, w, g))
    expected = reference.adder_conv2d(x, w, *geometry.arguments)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-4)
    expected = reference.adder_conv2d_backward(g, x, w, *geometry.arguments)
    for grad, value in zip(grads, expected):
        torch.testing.assert_close(
            grad.double(), value, rtol=1e-4,
            atol=1e-5 * value.abs().max().item())


@pytest.mark.parametrize('mode', MODES)
def test_no_images(mode):
    x, w, _ = Geometry(0, 4, (5, 6), 7, (3, 3)).tensors()
    x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(x, w, padding=1, mode=mode)
    assert y.shape == (0, 7, 5, 6)
    grad_x, grad_w = torch.autograd.grad(y.sum(), (x, w))
    assert grad_x.shape == x.shape
    assert torch.equal(grad_w, torch.zeros_like(w))


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('size', [(0, 3), (3, 0), (0, 0)])
def test_an_image_without_pixels_is_all_padding(size, mode):
    """Padding is a real sample: each output is minus the filter's norm."""
    x = torch.zeros(2, 4, *size, requires_grad=True)
    w = torch.randn(5, 4, 3, 3, requires_grad=True)
    y = adder_conv2d(x, w, padding=2, mode=mode)
    norms = w.detach().abs().sum((1, 2, 3)).view(1, 5, 1, 1)
    torch.testing.assert_close(y, -norms.expand_as(y))
    g = torch.randn(y.shape)
    grad_x, grad_w = torch.autograd.grad(y, (x, w), g)
    assert grad_x.shape == x.shape
    torch.testing.assert_close(
        grad_w, -w.detach() * g.sum((0, 2, 3)).view(5, 1, 1, 1))


# ---------------------------------------------------------------- memory --


@pytest.mark.parametrize('mode', MODES)
def test_one_tensor_in_all_places(mode):
    """Input, weight and gradient are the same memory."""
    x = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    y = adder_conv2d(x, x, padding=1, mode=mode)
    torch.testing.assert_close(
        y, reference.adder_conv2d(x, x, padding=1), rtol=1e-5, atol=1e-5)
    arguments = ((1, 1), (1, 1), (1, 1), 1)
    expected = reference.adder_conv2d_backward(x, x, x, *arguments)
    actual = (OPS.adder_conv2d_input_grad(x, x, x, *arguments, 'hardtanh'),
              OPS.adder_conv2d_weight_grad(x, x, x, *arguments))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(x, before)


def test_overlapping_views_of_one_storage():
    memory = torch.randn(400, generator=torch.Generator().manual_seed(0))
    x = memory.as_strided((2, 3, 6, 7), (50, 40, 7, 1), 3)
    w = memory.as_strided((4, 3, 3, 3), (1, 2, 3, 4), 1)
    before = memory.clone()
    torch.testing.assert_close(
        adder_conv2d(x, w, padding=1),
        adder_conv2d(x.clone(), w.clone(), padding=1))
    assert torch.equal(memory, before)


def test_output_is_new_memory():
    x = torch.randn(1, 1, 4, 4)
    y = adder_conv2d(x, torch.zeros(1, 1, 1, 1))
    before = x.clone()
    y.zero_()
    assert torch.equal(x, before)
