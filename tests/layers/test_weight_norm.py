"""Eq. 10 and 11 by hand, against their formula and by differences."""
import pytest
import torch
from mmengine.registry import MODELS

from mmadder.layers import (
    AWN,
    WS,
    adaptive_weight_norm,
    weight_standardization,
)

SHAPES = [(5, 3, 3, 2), (1, 4, 1, 1), (7, 2), (3, 1, 2, 1)]


def formula(weight, nu, upsilon, eps=1e-5):
    axes = tuple(range(1, weight.dim()))
    column = (-1, *[1] * len(axes))
    centred = weight - weight.mean(axes, keepdim=True)
    sigma = (centred.square().mean(axes, keepdim=True) + eps).sqrt()
    return nu.view(column) * centred / sigma + upsilon.view(column)


def draw(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    weight, nu, upsilon = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, shape[:1], shape[:1]))
    return [t.to(dtype).requires_grad_() for t in (3 * weight + 2, nu,
                                                   upsilon)]


def test_by_hand():
    weight = torch.tensor([[1., 2., 3., 4.]], dtype=torch.float64)
    weight.requires_grad_()
    nu, upsilon = torch.tensor([[2.], [.5]], dtype=torch.float64)
    output = adaptive_weight_norm(weight, nu, upsilon)
    torch.testing.assert_close(
        output[0].tolist(), [-2.18327, -.39442, 1.39442, 3.18327],
        rtol=0, atol=5e-6)
    grad, = torch.autograd.grad(output[0, 0], weight)
    torch.testing.assert_close(
        grad[0].tolist(), [.53666, -.71554, -.17889, .35776],
        rtol=0, atol=5e-6)


@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize('shape', SHAPES)
def test_is_the_formula(shape, dtype, tolerance):
    arguments = draw(shape, dtype)
    output = adaptive_weight_norm(*arguments)
    expected = formula(*draw(shape))
    assert output.dtype == dtype and output.shape == shape
    torch.testing.assert_close(
        output.double(), expected, rtol=tolerance, atol=tolerance)
    grad_output = torch.randn(shape, dtype=dtype)
    grads = torch.autograd.grad(output, arguments, grad_output)
    exact = draw(shape)
    expected = torch.autograd.grad(
        formula(*exact), exact, grad_output.double())
    torch.testing.assert_close(
        [grad.double() for grad in grads], list(expected), rtol=tolerance,
        atol=tolerance)


@pytest.mark.parametrize('shape', SHAPES)
def test_gradcheck(shape):
    arguments = draw(shape)
    assert torch.autograd.gradcheck(adaptive_weight_norm, arguments)
    assert torch.autograd.gradcheck(weight_standardization, arguments[:1])


def test_gradient_of_each_filter_sums_to_zero():
    weight, nu, upsilon = draw((6, 4, 3, 3))
    output = adaptive_weight_norm(weight, nu, upsilon)
    output.backward(torch.randn_like(output))
    torch.testing.assert_close(
        weight.grad.sum((1, 2, 3)), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_filter_of_one_tap_becomes_upsilon(dtype):
    norm = AWN(3, nu=4., upsilon=.5).to(dtype)
    weight = torch.randn(3, 1, 1, 1, dtype=dtype, requires_grad=True)
    output = norm(weight)
    output.sum().backward()
    rounding = 1e4 * torch.finfo(dtype).eps  # nu / sqrt(eps) times eps
    expected = torch.full_like(output, .5)
    torch.testing.assert_close(output, expected, rtol=0, atol=rounding)
    assert weight.grad.abs().max() <= rounding
    assert norm.upsilon.grad.eq(1).all()


def test_a_constant_filter_becomes_upsilon():
    weight = torch.full((2, 3, 3, 3), 7.)
    torch.testing.assert_close(
        AWN(2, upsilon=.25)(weight), torch.full_like(weight, .25),
        rtol=0, atol=1e-3)


def test_standardization_is_scale_one_and_shift_zero():
    weight = 5 * torch.randn(8, 16, 3, 3) + 3
    output = weight_standardization(weight)
    var, mean = torch.var_mean(output, (1, 2, 3), correction=0)
    torch.testing.assert_close(var, torch.ones(8), rtol=1e-4, atol=0)
    torch.testing.assert_close(mean, torch.zeros(8), rtol=0, atol=1e-5)
    assert torch.equal(output, WS(8)(weight))
    torch.testing.assert_close(output, AWN(8)(weight))


def test_eps_is_inside_the_root():
    weight = torch.tensor([[1., -1.]])
    output = weight_standardization(weight, eps=3.)
    assert output.tolist() == [[.5, -.5]]


def test_memory_layout_does_not_matter():
    weight = torch.randn(4, 8, 3, 3)
    strided = weight.to(memory_format=torch.channels_last)
    assert torch.equal(
        weight_standardization(weight), weight_standardization(strided))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types(dtype):
    weight = torch.randn(4, 8, 3, 3)
    norm = AWN(4, nu=2., upsilon=-1.)
    torch.testing.assert_close(
        norm.to(dtype)(weight.to(dtype)).float(), norm.float()(weight),
        rtol=0, atol=50 * torch.finfo(dtype).eps)


def test_modules_are_registered_with_their_initial_values():
    norm = MODELS.build(dict(type='AWN', out_channels=3, nu=2., upsilon=.5))
    assert norm.nu.tolist() == [2.] * 3 and norm.upsilon.tolist() == [.5] * 3
    assert all(parameter.requires_grad for parameter in norm.parameters())
    with torch.no_grad():
        norm.nu.zero_()
    norm.init_weights()
    assert norm.nu.tolist() == [2.] * 3
    assert not list(MODELS.build(dict(type='WS', out_channels=3)).parameters())
    assert norm.eps == 1e-5
