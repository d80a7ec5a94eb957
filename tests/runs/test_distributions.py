"""Fits and figures of distributions whose numbers are known."""
import numpy as np
import pytest
import torch

from mmadder.errors import InputError
from mmadder.runs.distributions import (
    describe,
    describe_runs,
    fit,
    moments,
    plot_epochs,
    plot_fits,
    plot_runs,
    spread_steps,
    table_of_fits,
)
from mmadder.runs.recording import read_recording

LAYER = 'backbone.layer1.0.conv2'


@pytest.mark.parametrize('name, draw', [
    ('laplace', torch.distributions.Laplace(.32, 6.65)),
    ('gaussian', torch.distributions.Normal(-.002, .03))])
def test_fits_tell_laplace_from_gaussian(name, draw):
    torch.manual_seed(0)
    values = draw.sample((200_000, )).double().numpy()
    counts, edges = np.histogram(values, 100)
    found = fit(counts, edges)
    mean, var = moments(counts, edges)
    assert mean == pytest.approx(values.mean(), abs=.02 * values.std())
    assert var == pytest.approx(values.var(), rel=.02)
    assert found[name]['variance'] == pytest.approx(values.var(), rel=.03)
    assert found[name]['distance'] < .03
    other, = set(found) - {name}
    assert found[other]['distance'] > .08


def test_fits_of_one_value():
    counts, edges = np.array([0, 5, 0]), np.array([0., 1, 2, 3])
    assert fit(counts, edges)['gaussian']['loc'] == pytest.approx(1.5)
    assert fit(np.array([3]), np.array([2., 2.]))['laplace']['loc'] == 2


def test_description_has_the_moments_of_all_values(runs):
    recording = read_recording(runs['jumpy'])
    found = describe(recording, LAYER, 'feature', 2)
    var = 2 * 1.5**2
    assert found['mean'] == pytest.approx(-100 * var)
    assert found['std'] == pytest.approx((50 * var)**.5)
    assert found['fits']['gaussian']['distance'] < .03
    assert spread_steps(recording) == [1, 5, 10]
    figure = plot_epochs({'a': [found], 'b': [describe(
        recording, LAYER, 'feature')]})
    assert 'epoch 2: -450 ± 15' in figure.axes[0].get_legend().texts[
        0].get_text()
    figure = plot_fits([[('a', 'feature', found), ('a', 'weight', None)]])
    assert len(figure.axes) == 2


def test_each_panel_of_epochs_has_its_own_range(runs):
    """Or the panel of a narrow network shows a spike."""
    panels = {name: [describe(read_recording(path), LAYER, 'feature', step)
                     for step in (1, 10)] for name, path in runs.items()}
    figure = plot_epochs(panels)
    for axis, found in zip(figure.axes, panels.values()):
        low, high = axis.get_xlim()
        assert low == pytest.approx(min(one['edges'][0] for one in found),
                                    abs=.1 * (high - low))
        assert high == pytest.approx(max(one['edges'][-1] for one in found),
                                     abs=.1 * (high - low))


def test_no_epoch_is_drawn_in_the_colour_of_another(runs):
    recording = read_recording(runs['steady'])
    found = [describe(recording, LAYER, 'feature', step)
             for step in range(1, 10)]
    with pytest.raises(InputError, match='9 epochs are too many'):
        plot_epochs(dict(a=found))


def test_runs_side_by_side(runs):
    recordings = {name: read_recording(path) for name, path in runs.items()}
    layers = dict.fromkeys(runs, LAYER)
    one = describe_runs(recordings, layers, ['normalized', 'weight'])
    header, rows = table_of_fits(one)
    assert header[:3] == ('run', 'quantity', 'epoch')
    assert [row[:3] for row in rows] == [
        (name, quantity, 10) for name in runs
        for quantity in ('normalized', 'weight')]
    assert len(plot_runs(one, layers).axes) == 4
    several = describe_runs(recordings, layers, ['feature'], [1, 10])
    titles = [axis.get_title() for axis in plot_runs(several, layers).axes]
    assert titles == [f'{name}: {LAYER}' for name in runs]


def test_layers_without_batch_norm_have_no_normalized_features(runs):
    recording = read_recording(runs['steady'])
    for record in recording.records:
        record['layers'][LAYER].pop('normalized_var')
    found = describe_runs(dict(a=recording), dict(a=LAYER),
                          ['normalized', 'weight'])
    assert found['a']['normalized'] == [] and len(found['a']['weight']) == 1
    assert len(plot_runs(found, dict(a=LAYER)).axes) == 2
    with pytest.raises(InputError, match='none of the layers has normalized'):
        describe_runs(dict(a=recording), dict(a=LAYER), ['normalized'])
