"""Simulation and trained networks beside the paper's formulas."""
import math

import pytest
import torch
from torch import nn

from mmadder.analysis import variance as eq
from mmadder.analysis.variance_study import (
    count_taps,
    measure_disturbance,
    simulate_layer,
    study_layer,
    study_model,
    study_record,
    table_of_disturbances,
    table_of_layers,
)
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d

# The paper's own variances: features 0.38, weights 88.47 around 0.32.
SIGMA, MU, B = math.sqrt(.38), .32, math.sqrt(88.47 / 2)


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


def test_tables_of_a_network(model):
    x = torch.rand(16, 8, 12, 12)
    header, rows = table_of_layers(study_model(model, lambda: model(x)))
    assert [row[:2] for row in rows] == [('0', 72), ('3', 54)]
    row = dict(zip(header[2::2], rows[0][2::2]))
    assert row['mean of x'] == pytest.approx(x.mean().item(), rel=1e-3)
    assert row['mean of y'] == pytest.approx(
        model[0](x).mean().item(), rel=1e-3)
    header, rows = table_of_disturbances(
        measure_disturbance(model, lambda: model(x)))
    assert rows[0][1] == pytest.approx(.1 * x.std().item(), rel=1e-3)
    assert len(header) == len(rows[0]) == 7


def test_a_bound_below_zero_is_not_shown():
    row = dict.fromkeys((
        'taps', 'input_mean', 'input_mean_eq4', 'input_var', 'input_var_eq5',
        'output_mean', 'output_mean_eq7', 'pooled_var', 'channel_var',
        'channel_var_bound'), 1.)
    for bound, shown in ((-.5, None), (.5, .5)):
        header, (cells, ) = table_of_layers(
            dict(a=dict(row, pooled_var_eq8=bound)))
        assert cells[header.index('variance of y, all') + 1] == shown
