"""Curves and heat maps of recordings whose numbers are known."""
import numpy as np
import pytest

from mmadder.errors import InputError
from mmadder.runs.losses import read_curves
from mmadder.runs.recording import read_recording
from mmadder.runs.stability_pictures import (
    curve_title,
    plot_curve,
    plot_maps,
    short_name,
)


def test_one_line_a_run_in_percent(runs):
    curves = {name: read_curves(path) for name, path in runs.items()}
    axis, = plot_curve(curves, 'accuracy/top1').axes
    assert axis.get_title() == 'accuracy/top1 in percent'
    assert [line.get_ydata()[-1] for line in axis.lines] == [90, 90]
    assert len({line.get_color() for line in axis.lines}) == 2
    axis, = plot_curve(curves, 'train').axes
    assert axis.get_title() == curve_title('train') == 'training loss'
    with pytest.raises(InputError, match='9 runs are too many'):
        plot_curve(dict.fromkeys('abcdefghi', curves['jumpy']), 'train')


def test_maps_show_growth_on_one_scale(runs):
    recorded = {name: read_recording(path) for name, path in runs.items()}
    figures = plot_maps(recorded, 'filter_var')
    assert list(figures) == list(runs)
    images = {name: figure.axes[0].images[0]
              for name, figure in figures.items()}
    grown = np.log10(1.5) * np.arange(10)
    np.testing.assert_allclose(images['jumpy'].get_array(), [grown] * 3)
    np.testing.assert_allclose(images['steady'].get_array(), 0, atol=1e-12)
    assert images['jumpy'].get_clim() == images['steady'].get_clim()
    names = figures['jumpy'].axes[0].get_yticklabels()
    assert names[0].get_text() == short_name('backbone.layer1.0.conv1')
    lag = plot_maps(recorded, 'lag')['steady'].axes[0].images[0]
    np.testing.assert_allclose(lag.get_array(), 4 / 32**.5)


def test_nothing_finite_is_no_map(runs):
    recording = read_recording(runs['steady'])
    for record in recording.records:
        for entry in record['layers'].values():
            entry['filter_var'] = None
    assert plot_maps(dict(a=recording), 'filter_var') == {}
