"""The paper's formulas against numbers worked out apart, and simulation."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmadder.analysis import variance as eq
from mmadder.analysis.variance_study import (
    count_taps,
    measure_disturbance,
    simulate_layer,
    study_layer,
    study_record,
)
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
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


def test_eq_8_is_negative_for_small_weights():
    tau, scale = eq.difference(1., 0., .3)
    assert abs(tau) > scale / 2
    assert eq.output_var_bound(1, tau, scale) == pytest.approx(
        -.147, abs=5e-4)
    with pytest.raises(ValueError, match='there is no Eq. 9'):
        eq.normalize_with_bounds(0., 1, tau, scale)
    rows = rows_by_name(simulate_layer(1, 1., 0., .3, channels=2000))
    assert rows['Eq. 8  variance of y, pooled']['measured'] == \
        pytest.approx(.341, abs=.02)


@pytest.mark.parametrize('tau, scale', [(0., 1.), (.7, .5), (-3., 2.)])
def test_folded_moments_by_integration(tau, scale):
    z = np.linspace(tau - 60 * scale, tau + 60 * scale, 2_000_001)
    density = np.exp(-abs(z - tau) / scale) / (2 * scale)
    step = z[1] - z[0]
    mean = (abs(z) * density).sum() * step
    var = (z**2 * density).sum() * step - mean**2
    np.testing.assert_allclose(eq.folded_moments(tau, scale), (mean, var),
                               rtol=1e-6)


def rows_by_name(rows):
    return {row['name']: row for row in rows}


def test_simulation_shows_what_holds():
    rows = rows_by_name(simulate_layer(576, SIGMA, MU, B, channels=128,
                                       samples=1000))
    for name, tolerance in {
            'Eq. 4  mean of x': .01, 'Eq. 5  variance of x': .01,
            'Eq. 7  mean of y': .03, 'Eq. 14 CNN, random delta': .1,
            'Eq. 14 ANN, aligned delta': .15, '       its mean shift': .03,
            '       ANN, random delta': .1}.items():
        assert rows[name]['measured'] == pytest.approx(
            rows[name]['formula'], rel=tolerance), name
    channel = rows['       variance of y, one channel']
    assert 67 < channel['measured'] < channel['formula']
    pooled = rows['Eq. 8  variance of y, pooled']
    assert 15000 < pooled['measured'] < 33000
    assert pooled['formula'] > 300 * channel['measured']
    folded = rows['Eq. 6  mean of |x - W - tau|']
    assert folded['formula'] == pytest.approx(B, rel=.002)
    assert folded['measured'] == pytest.approx(B, rel=.05)
    # Behind Eq. 9 a channel has not deviation 1 but sqrt(71.3 / 24949).
    narrow = rows['Eq. 9  deviation of y, one channel']
    assert narrow['formula'] == 1
    assert narrow['measured'] == pytest.approx(.0534, rel=.05)
    tap = rows['Eq. 13 ANN, change of a tap']
    assert .95 < tap['measured'] / tap['formula'] < 1
    # Eq. 16 takes n E[delta] off, the outputs move by much less.
    moved = rows['Eq. 16 move of y, all of x moved']
    assert moved['formula'] == 0
    assert abs(moved['measured']) == pytest.approx(
        576 * .1 / 24949**.5, rel=.15)


def test_simulation_without_eq_9():
    """Eq. 8 is negative for small weights: Eq. 9 and 16 say nothing."""
    rows = rows_by_name(simulate_layer(64, 1., 0., .1, channels=8,
                                       samples=50))
    assert not any(name.startswith(('Eq. 9', 'Eq. 16')) for name in rows)
    assert rows['Eq. 8  variance of y, pooled']['formula'] < 0


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


# ------------------------------------------------- of trained networks --


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(AdderConv2d(8, 6, 3, padding=1),
                          nn.BatchNorm2d(6), nn.ReLU(),
                          AdderConv2d(6, 4, 3, stride=2, padding=1))
    for i in (0, 3):
        nn.init.normal_(model[i].weight, std=50)
    return model.eval()


def test_disturbing_a_network(model):
    x = torch.rand(16, 8, 12, 12)
    before = model(x)
    found = measure_disturbance(model, lambda: model(x), ratio=.1)
    assert list(found) == ['0', '3']
    first = found['0']
    assert first['taps'] == 72
    assert first['delta_sigma'] == pytest.approx(.1 * x.std().item())
    # Weights far from the input: each tap passes +-delta whole.
    assert first['measured'] == pytest.approx(first['random'], rel=.1)
    assert first['next_eq15'] == pytest.approx(
        first['eq14'] / first['channel_var'])
    torch.testing.assert_close(model(x), before)
    assert not model[0]._forward_hooks


def test_studying_a_layer(model):
    torch.manual_seed(0)
    x = torch.randn(2000, 8, 3, 3).relu()
    layer = AdderConv2d(8, 40, 3)
    output = layer(x).flatten(1)
    weight = layer.weight
    row = study_layer(dict(
        input_mean=x.mean().item(), input_var=x.var().item(),
        filter_mean=weight.mean().item(), filter_var=weight.var().item(),
        feature_mean=output.mean().item(), feature_var=output.var().item(),
        feature_channel_var=output.var(0).mean().item()), 72)
    assert row['sigma'] == pytest.approx(1, abs=.02)
    assert row['input_mean'] == pytest.approx(row['input_mean_eq4'], abs=.01)
    assert row['input_var'] == pytest.approx(row['input_var_eq5'], abs=.01)
    assert row['channel_var'] < row['channel_var_bound']
    assert row['tracked_mean'] is None
    assert count_taps(model) == {'0': 72, '3': 54}


def test_studying_needs_adders_of_this_model():
    conv = dict(layers=dict(a=dict(kind='conv')))
    with pytest.raises(InputError, match='no adder layers'):
        study_record(conv, {})
    adder = dict(layers=dict(a=dict(kind='adder', input_mean=None)))
    with pytest.raises(InputError, match='the model has no layer a'):
        study_record(adder, dict(b=9))
    assert study_record(adder, dict(a=9)) == {}
