"""The paper's formulas against numbers worked out apart."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmadder.analysis import variance as eq
from mmadder.ops import adder_conv2d

# The paper's own variances: features 0.38, weights 88.47 around 0.32.
SIGMA, MU, B = math.sqrt(.38), .32, math.sqrt(88.47 / 2)


def test_rectified_moments():
    assert eq.rectified_mean(1.) == pytest.approx(.3989, abs=5e-5)
    assert eq.rectified_var(1.) == pytest.approx(.3408, abs=5e-5)
    assert eq.rectified_var(3.) == pytest.approx(9 * eq.rectified_var(1.))


def test_bounds_at_the_papers_variances():
    tau, scale = eq.difference(SIGMA, MU, B)
    assert eq.output_mean_bound(576, tau, scale) == pytest.approx(
        -3876, abs=1)
    assert eq.output_var_bound(576, tau, scale) == pytest.approx(24949, abs=1)
    assert eq.channel_var_bound(576, eq.rectified_var(SIGMA)) == \
        pytest.approx(74.6, abs=.05)


@pytest.mark.parametrize('tau, scale', [(0., 1.), (.7, .5), (-3., 2.)])
def test_folded_moments_by_integration(tau, scale):
    z = np.linspace(tau - 60 * scale, tau + 60 * scale, 2_000_001)
    density = np.exp(-abs(z - tau) / scale) / (2 * scale)
    step = z[1] - z[0]
    mean = (abs(z) * density).sum() * step
    var = (z**2 * density).sum() * step - mean**2
    np.testing.assert_allclose(eq.folded_moments(tau, scale), (mean, var),
                               rtol=1e-6)


def test_eq_13_against_the_operator():
    torch.manual_seed(0)
    x, delta = torch.rand(2, 2, 3, 5, 5, dtype=torch.float64)
    weight = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    change = adder_conv2d(x - delta, weight) - adder_conv2d(x, weight)
    flat = [tensor.flatten(1).numpy() for tensor in (x, weight, delta)]
    found = eq.disturbance_ann(flat[0][:, None], flat[1], flat[2][:, None])
    np.testing.assert_allclose(found, change.flatten(1).numpy(), rtol=1e-9)
    linear = nn.functional.conv2d(x - delta, weight) - nn.functional.conv2d(
        x, weight)
    np.testing.assert_allclose(
        eq.disturbance_cnn(flat[1], flat[2][:, None]),
        linear.flatten(1).numpy(), rtol=1e-9)


def test_disturbance_variances():
    aligned = eq.disturbance_var_ann(100, .1)
    assert eq.random_disturbance_var_ann(100, .1) / aligned == pytest.approx(
        2.75, abs=.005)
    assert eq.disturbance_var_cnn(100, .1, .5, 2.) == pytest.approx(2.25)
    assert eq.aligned_shift(100, .1) == pytest.approx(7.979, abs=1e-3)
    assert eq.next_disturbance_var(aligned, 4.) == aligned / 4


def test_eq_16_is_eq_9_without_a_disturbance():
    tau, scale = eq.difference(SIGMA, MU, B)
    y = np.array([-4000., -3800.])
    plain = eq.normalize_with_bounds(y, 576, tau, scale, 2., .5)
    np.testing.assert_allclose(
        plain, 2 * (y + 3876.4) / 157.95 + .5, atol=.02)
    np.testing.assert_allclose(
        eq.normalize_disturbed(y, 576, tau, scale, 0., 2., .5), plain)
    assert (eq.normalize_disturbed(y, 576, tau, scale, .1, 2., .5)
            != plain).all()


def test_printed_eq_12_is_not_the_gradient():
    """Why the layers leave it to autograd."""
    w = torch.tensor([1., 2, 3, 4], dtype=torch.float64, requires_grad=True)
    mu, sigma, nu = w.mean(), w.std(correction=0), 2.
    (nu * (w - mu) / sigma)[0].backward()
    true = w.grad
    gradient = torch.tensor([1., 0, 0, 0], dtype=torch.float64)
    w, mu, sigma = w.detach(), mu.detach(), sigma.detach()
    n = len(w)
    printed = (nu / (n**2 * sigma) * (gradient[:, None] - gradient * (
        1 + (w[:, None] - w) * (w - mu) / sigma))).sum(1)
    np.testing.assert_allclose(true, [.53666, -.71554, -.17889, .35777],
                               atol=1e-4)
    np.testing.assert_allclose(printed, [.335, .038, .188, .338], atol=1e-3)
