"""Comparison of runs against figures worked by hand."""
import json

import cv2
import numpy as np
import pytest

from mmadder.errors import InputError
from mmadder.runs.comparison import (
    compare,
    markdown,
    measure,
    smooth,
    write_comparison,
)
from mmadder.runs.run import choose_metric, read_run

MAP, TOP1 = 'pascal_voc/mAP', 'accuracy/top1'
LOG = '''2026/01/01 10:00:00 - mmengine - INFO - started
2026/01/01 10:20:00 - mmengine - INFO -
---------------iou_thr: 0.5---------------
{tables}
2026/01/01 10:30:00 - mmengine - INFO - done
'''
TABLE = '''+-------+-----+------+--------+-------+
| class | gts | dets | recall | ap    |
+-------+-----+------+--------+-------+
| a     | 968 | 3581 | 0.628  | {a} |
| b c   | 87  | 629  | 0.402  | {b} |
+-------+-----+------+--------+-------+
| mAP   |     |      |        | {mean} |
+-------+-----+------+--------+-------+
'''


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a run of two-iteration epochs."""

    def write(name, values, metric=MAP, classes=('a', 'b c'), log='',
              stamp='20260101_000000', losses=None):
        folder = tmp_path / name / stamp
        (folder / 'vis_data').mkdir(parents=True)
        losses = losses or [2 - i / 9 for i in range(2 * len(values))]
        records = [dict(loss=loss, step=i + 1, epoch=i // 2 + 1)
                   for i, loss in enumerate(losses)]
        records += [{metric: value, 'time': .1, 'step': i + 1}
                    for i, value in enumerate(values)]
        (folder / 'vis_data' / 'scalars.json').write_text(
            '\n'.join(map(json.dumps, records)))
        metainfo = f'metainfo=dict(classes={classes!r})' if classes else ''
        (folder / 'vis_data' / 'config.py').write_text(
            f'val_dataloader = dict(dataset=dict({metainfo}))')
        if log:
            (folder / f'{stamp}.log').write_text(log)
        return tmp_path / name

    return write


def test_figures_by_hand(make):
    values = [.1, .9, .2, .5, .7, .6, .8, .75]
    figures = measure(read_run(make('run', values)), MAP)
    assert figures['final'] == .75
    assert (figures['best'], figures['best_step']) == (.9, 2)
    # Second half: .7, .6, .8, .75.
    assert figures['mean_change'] == pytest.approx((.1 + .2 + .05) / 3)
    assert figures['largest_drop'] == pytest.approx(.1)
    assert figures['loss'] == pytest.approx(2 - 15 / 9)
    assert figures['minutes'] is None and figures['class_ap'] == {}


def test_rising_and_short_runs(make):
    rising = measure(read_run(make('a', [.1, .2, .3, .4])), MAP)
    assert rising['largest_drop'] == 0
    assert rising['mean_change'] == pytest.approx(.1)
    short = measure(read_run(make('b', [.1, .2])), MAP)
    assert short['mean_change'] is None and short['largest_drop'] is None


def test_smoothing():
    values = np.random.default_rng(0).random(200)
    expected = np.convolve(values, np.full(9, 1 / 9), 'valid')
    np.testing.assert_allclose(smooth(values)[4:-4], expected)
    assert smooth(values)[0] == pytest.approx(values[:5].mean())
    np.testing.assert_allclose(smooth([1, 5, 2]), [1, 5, 2])
    values[50] = np.nan  # spoils its window only
    assert np.isnan(smooth(values)).sum() == 9


def test_seeds_become_mean_and_band(make):
    runs = [read_run(make('a', [.1, .2, .3])), read_run(make('b', [.3, .6])),
            read_run(make('c', [.2, .4, .7], losses=[1, 2, 3, 4, 5, 6]))]
    result = compare({'awn': runs})
    run = result['runs']['awn']
    assert run['validation'] == dict(
        steps=[1, 2], mean=pytest.approx([.2, .4]), low=[.1, .2],
        high=[.3, .6])
    assert run['loss']['steps'] == [1, 2, 3, 4]
    final = run['summary']['final']
    assert final['mean'] == pytest.approx(1.6 / 3)
    assert final['std'] == pytest.approx(np.std([.3, .6, .7], ddof=1))
    assert len(run['seeds']) == 3 and run['summary']['mean_change'] is None
    assert 'different steps' in result['notes'][0]
    assert '0.533 ± 0.208' in markdown(result)


def test_log_gives_class_ap_and_wall_time(make):
    tables = [TABLE.format(a='0.500', b='0.300', mean='0.400'),
              TABLE.format(a='0.800', b='0.700', mean='0.750'),
              TABLE.format(a='0.900', b='0.800', mean='0.850')]
    log = LOG.format(tables='iou_thr: 0.5\n'.join(tables))
    folder = make('run', [.4, .7502], log=log)
    make('run', [.4, .7502], log=log.replace('10:', '12:'),
         stamp='20260101_120000')  # resumed
    figures = measure(read_run(folder), MAP)
    assert figures['class_ap'] == {'a': .8, 'b c': .7}
    assert figures['minutes'] == 60
    inner = measure(read_run(folder / '20260101_120000'), MAP)
    assert inner['minutes'] == 30


def test_metric_is_found_or_required():
    a = [{MAP: 1, 'pascal_voc/AP50': 1, 'step': 1, 'time': 2}]
    b = [{'pascal_voc/AP50': 1, MAP: 1, 'x': 3, 'step': 1}]
    assert choose_metric(dict(a=a, b=b)) == MAP
    assert choose_metric(dict(b=[{'x': 1}])) == 'x'
    assert choose_metric(dict(b=[{'x': 1, 'own/mAP': 1}])) == 'own/mAP'
    with pytest.raises(InputError, match='a: pascal_voc/mAP, pascal_voc/AP50'
                       '\n  b: accuracy/top1\n  c: no validation'):
        choose_metric(dict(a=a, b=[{TOP1: 1}], c=[]))


def test_runs_that_cannot_be_compared(make, tmp_path):
    a, b = make('a', [.1, .2]), make('b', [.1, .2], classes=('x', 'b c'))
    with pytest.raises(InputError, match=r'other classes:\n.*: 2, a, b c\n'
                       r'.*: 2, x, b c'):
        write_comparison(tmp_path / 'out', dict(a=[a], b=[b]))
    other = make('c', [10, 20], metric=TOP1)
    with pytest.raises(InputError, match='no validation metric in common'):
        write_comparison(tmp_path / 'out', dict(a=[a], c=[other]))
    with pytest.raises(InputError, match="not every run has the metric 'y'"):
        write_comparison(tmp_path / 'out', dict(a=[a]), 'y')
    with pytest.raises(InputError, match='9 runs are too many'):
        write_comparison(tmp_path / 'out', dict.fromkeys('abcdefghi', [a]))
    with pytest.raises(InputError, match='no vis_data/scalars.json in'):
        read_run(tmp_path)
    with pytest.raises(InputError, match='is not a directory'):
        read_run(tmp_path / 'none')


def test_files(make, tmp_path):
    log = LOG.format(tables=TABLE.format(a='0.500', b='0.300', mean='0.400'))
    groups = {'AWN': [make('a', [.2, .4], log=log)],
              'CNN': [make('b', [.3, .6], classes=None)]}
    text, paths = write_comparison(tmp_path / 'out', groups)
    assert '| AWN |     1 | 0.400 | 0.400 |' in text
    assert '| a                            | 0.500 |   - |' in text
    assert '| b c                          | 0.300 |   - |' in text
    png, md, data = paths
    assert cv2.imread(str(png)).std() > 5
    assert md.read_text() == text
    assert json.loads(data.read_text())['metric'] == MAP


def test_percent_has_two_digits_and_a_running_run_is_read(make):
    folder = make('run', [58.333, 60.], metric=TOP1, classes=None)
    with open(folder / '20260101_000000/vis_data/scalars.json', 'a') as file:
        file.write('\n{"loss": 1.2, "st')
    result = compare({'run': [read_run(folder)]})
    assert '| 60.00 | 60.00 |' in markdown(result)
    assert result['step'] == 'epoch'
