"""Sizes of the gradient: eta, whatever the loss and its scale."""
import math

import pytest
import torch

from mmadder.layers import (
    get_loss_scale,
    local_gradient_scaling,
    set_loss_scale,
)


@pytest.fixture(autouse=True)
def restore_loss_scale():
    yield
    set_loss_scale(1)


def rms(tensor):
    return tensor.double().square().mean().sqrt().item()


def scaled(gradient, eta=0.2):
    """Gradient that arrives at a weight."""
    weight = torch.zeros_like(gradient, requires_grad=True)
    local_gradient_scaling(weight, eta).backward(gradient)
    return weight.grad


def test_forward_is_the_identity():
    weight = torch.randn(3, 2, 5, 4)
    assert torch.equal(local_gradient_scaling(weight), weight)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('loss', [1e-9, 1e-3, 1., 65536., 1e16])
def test_rms_is_eta_for_any_loss(loss, dtype):
    gradient = loss * torch.randn(6, 3, 3, 2, dtype=dtype)
    assert rms(scaled(gradient, 0.3)) == pytest.approx(0.3, rel=1e-6)


def test_no_digit_of_a_double_is_lost():
    """A third is no float32."""
    gradient = torch.randn(6, 3, 3, 2, dtype=torch.float64)
    set_loss_scale(1 / 3)
    assert get_loss_scale() == 1 / 3
    assert rms(scaled(gradient)) == pytest.approx(.2 / 3, rel=1e-14)


@pytest.mark.parametrize('requires_grad', [True, False])
def test_nothing_is_recorded_without_need(requires_grad):
    weight = torch.randn(4, 3, requires_grad=requires_grad)
    with torch.set_grad_enabled(not requires_grad):
        output = local_gradient_scaling(weight)
    assert output.grad_fn is None and torch.equal(output, weight)


def test_functorch_is_refused():
    with pytest.raises(RuntimeError, match='only backward.. and'):
        torch.func.grad(lambda weight: local_gradient_scaling(weight).sum())(
            torch.randn(4, 3))


def test_is_the_published_formula():
    gradient = torch.tensor([[3., 0.], [0., 4.]])
    expected = 0.2 * math.sqrt(4) / 5 * gradient
    torch.testing.assert_close(scaled(gradient), expected)


def test_norm_is_exact_for_a_large_layer():
    gradient = torch.rand(512, 4608) * 1e-3
    assert rms(scaled(gradient)) == pytest.approx(0.2, rel=1e-6)


def test_zero_gradient_stays_zero():
    """Guard issue 2: a zero-initialised norm sends it at the first step."""
    assert scaled(torch.zeros(4, 4)).abs().max() == 0


@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan, 1e30])
def test_overflow_is_seen_by_a_grad_scaler(value):
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.SGD([weight], lr=1.)
    scaler = torch.amp.GradScaler('cpu', init_scale=8.)
    gradient = torch.ones(2, 3)
    gradient[1, 1] = value
    local_gradient_scaling(weight).backward(gradient)
    scaler.scale(torch.ones(()))  # the scaler starts at its first use
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight.detach(), torch.ones(2, 3))
    assert scaler.get_scale() == 4


@pytest.mark.parametrize('scale', [2.**-14, 1., 65536., 2.**50])
def test_grad_scaler_finds_eta_after_unscaling(scale):
    weight = torch.nn.Parameter(torch.randn(5, 4, 3, 3))
    optimizer = torch.optim.SGD([weight], lr=1.)
    scaler = torch.amp.GradScaler('cpu', init_scale=scale)
    set_loss_scale(scaler.get_scale())
    loss = local_gradient_scaling(weight).square().sum()
    scaler.scale(loss).backward()
    assert rms(weight.grad) == pytest.approx(0.2 * scale, rel=1e-6)
    scaler.unscale_(optimizer)
    assert rms(weight.grad) == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize('grad_scale', [1., 1024.])
def test_micro_batches_give_the_mean_of_scaled_gradients(grad_scale):
    gradients = torch.randn(3, 6, 2, 3, 3) * torch.tensor(
        [1., 100., 1e-4]).view(3, 1, 1, 1, 1)
    set_loss_scale(grad_scale / 3)
    weight = torch.zeros(6, 2, 3, 3, requires_grad=True)
    for gradient in gradients:
        local_gradient_scaling(weight).backward(gradient * grad_scale / 3)
    expected = sum(g * 0.2 / rms(g) for g in gradients) / 3
    torch.testing.assert_close(weight.grad / grad_scale, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_gradient_keeps_its_dtype_but_not_its_range(dtype):
    """The sum of squares would overflow float16."""
    gradient = torch.full((64, 64), 100., dtype=dtype)
    result = scaled(gradient)
    assert result.dtype == dtype
    assert rms(result) == pytest.approx(0.2, rel=1e-2)


@pytest.mark.parametrize('scale', [0, -1, math.inf, math.nan])
def test_loss_scale_must_be_positive_and_finite(scale):
    with pytest.raises(ValueError, match='positive and finite, got'):
        set_loss_scale(scale)
    assert get_loss_scale() == 1


def test_compiled_backward_follows_the_loss_scale():
    """A plain number would stay what it was at the first call."""
    compiled = torch.compile(
        lambda weight: local_gradient_scaling(weight) * 3,
        backend='aot_eager', fullgraph=True)
    weight = torch.ones(4, 3, requires_grad=True)
    for scale in (1., 8., 0.5):
        set_loss_scale(scale)
        grad, = torch.autograd.grad(compiled(weight).sum(), weight)
        assert rms(grad) == pytest.approx(0.2 * scale)
