"""Curves of trainings: every run is drawn, in a colour of its own."""
import numpy as np
import pytest
from recordings import write_logged_run, write_scalars

from mmadder.errors import InputError
from mmadder.runs.comparison import compare
from mmadder.runs.run import read_run
from mmadder.runs.run_pictures import plot_comparison, plot_training
from mmadder.runs.scalars import read_scalars

METRIC = 'accuracy/top1'


def test_loss_and_metric_of_each_run(tmp_path):
    write_scalars(tmp_path / 'a', (1, 2), values=[20., 30.])
    runs = {name: read_scalars(tmp_path / 'a') for name in 'abcdefgh'}
    left, right = plot_training(runs, METRIC).axes
    assert len(left.lines) == len(right.lines) == 8
    assert len({line.get_color() for line in right.lines}) == 8
    assert list(right.lines[0].get_ydata()) == [20, 30]
    assert list(left.lines[0].get_xdata()) == [5, 10, 15, 20]
    assert [text.get_text() for text in left.get_legend().texts] == list(runs)
    with pytest.raises(InputError, match='9 runs are too many'):
        plot_training(dict(runs, i=runs['a']), METRIC)


def test_comparison_has_a_band_and_class_ap(tmp_path):
    folders = [write_logged_run(tmp_path / name, values)
               for name, values in (('a', [.1, .2]), ('b', [.3, .4]))]
    seeds = [read_run(folder) for folder in folders]
    result = compare({'both': seeds, 'one': seeds[:1]})
    assert len(plot_comparison(result).axes) == 2
    result['runs']['both']['class_ap'] = {
        'x': dict(mean=.5, std=.1), 'y': None}
    loss, validation, classes = plot_comparison(result).axes
    both, one = validation.lines
    np.testing.assert_allclose(both.get_ydata(), [.2, .3])
    assert both.get_color() != one.get_color()
    assert both.get_marker() != one.get_marker()
    assert [tick.get_text() for tick in classes.get_xticklabels()] == [
        'x', 'y']
    assert len(loss.collections) == 2
