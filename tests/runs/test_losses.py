"""Curves and their smoothness, against figures worked by hand."""
import numpy as np
import pytest
from recordings import write_run

from mmadder.errors import InputError
from mmadder.runs.losses import (
    choose_curve,
    loss_gap,
    plot_losses,
    read_curves,
    smoothness,
    summarize,
    table_of_points,
)


def test_smoothness_by_hand():
    line = smoothness('x', list(range(20)))
    assert line['wobble'] == 0 and line['worst_step'] == 0
    # Behind the first fifth: 4, 8, 4, 8, 4; neighbours' means are 4 and 8.
    jumps = smoothness('x', [0, 9, 4, 8, 4, 8, 4])
    assert jumps['wobble'] == 4 and jumps['worst_step'] == 4
    rising = smoothness('loss', [9, 9, 1, 2, 4, 7, 11])
    assert rising['worst_step'] == 4
    assert smoothness('x', [1., 2, 3, 4])['wobble'] is None
    broken = smoothness('x', [1., np.nan, *range(10), np.inf])
    assert broken['not_finite'] == 2 and broken['wobble'] == 0


def test_curves_of_a_run(tmp_path):
    path = write_run(tmp_path, 4, values=[.2, .5, .9, .8],
                     metric='pascal_voc/mAP', losses=[2., 1, .5, 3])
    run = read_curves(path)
    assert run['unit'] == 'epoch'
    assert run['train'][0] == (1, pytest.approx((3 / 5 + 3 / 10) / 2))
    found = summarize(run, 'pascal_voc/mAP')
    assert (found['best'], found['best_step'], found['last']) == (90, 3, 80)
    # Training loss is 3 / step at steps 35 and 40 of the fourth epoch.
    assert loss_gap(run) == (pytest.approx(3 / (3 / 70 + 3 / 80)), 4)
    found = summarize(run, 'test/cross_entropy')
    assert (found['best'], found['best_step'], found['last']) == (.5, 3, 3)
    assert len(plot_losses(dict(a=run), 'test/cross_entropy').axes) == 1
    assert len(plot_losses(dict(a=run), 'pascal_voc/mAP').axes) == 2


def test_the_test_loss_comes_first(tmp_path):
    runs = dict(a=read_curves(write_run(tmp_path / 'a', 2)))
    assert choose_curve(runs) == 'accuracy/top1'
    runs['a'] = read_curves(write_run(tmp_path / 'b', 2, losses=[2., 1.]))
    assert choose_curve(runs) == 'test/cross_entropy'
    runs['b'] = read_curves(write_run(tmp_path / 'c', 2))
    assert choose_curve(runs) == 'accuracy/top1'
    with pytest.raises(InputError, match="not every run has .*entropy'"):
        choose_curve(runs, 'test/cross_entropy')


def test_table_ends_with_the_last_point(tmp_path):
    metric = 'accuracy/top1'
    runs = {name: read_curves(write_run(tmp_path / name, epochs))
            for name, epochs in (('a', 9), ('b', 7))}
    header, rows = table_of_points(runs, metric, most=3)
    assert header == ('epoch', 'a', 'b')
    assert rows == [(1, 51., 51.), (4, 54., 54.), (7, 57., 57.),
                    (9, 59., None)]


def test_no_run_is_drawn_in_the_colour_of_another(tmp_path):
    run = read_curves(write_run(tmp_path, 2))
    with pytest.raises(InputError, match='9 runs are too many'):
        plot_losses(dict.fromkeys('abcdefghi', run), 'accuracy/top1')
