"""Comparison of runs against figures worked by hand."""
import json

import cv2
import numpy as np
import pytest
from recordings import VOC_LOG, VOC_TABLE, write_logged_run

from mmadder.errors import InputError
from mmadder.runs.comparison import (
    compare,
    markdown,
    measure,
    smooth,
    write_comparison,
)
from mmadder.runs.run import read_run

MAP, TOP1 = 'pascal_voc/mAP', 'accuracy/top1'


@pytest.fixture
def make(tmp_path):
    """Return a function (name, values) that writes a run."""

    def write(name, *args, **kwargs):
        return write_logged_run(tmp_path / name, *args, **kwargs)

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
    log = VOC_LOG.format(tables=VOC_TABLE.format(
        a='0.500', b='0.300', mean='0.400'))
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


def test_json_is_json_where_a_loss_is_nan(make, tmp_path):
    """RFC 8259 has no NaN: JavaScript and jq refuse a file with one."""
    folder = make('a', [.2, .4], losses=[1., np.nan, 1., 1.])
    (tmp_path / 'out').mkdir()
    *_, data = write_comparison(tmp_path / 'out', dict(a=[folder]))[1]

    def refuse(name):
        raise AssertionError(f'{name} is no JSON')

    result = json.loads(data.read_text(), parse_constant=refuse)
    assert result['runs']['a']['loss']['mean'][1] is None


def test_a_text_that_fails_leaves_the_old_files_whole(
        make, tmp_path, monkeypatch):
    out, groups = tmp_path / 'out', dict(a=[make('a', [.2, .4])])
    _, paths = write_comparison(out, groups)
    before = [path.read_bytes() for path in paths]

    def fail(self, file, **_):
        with open(file, 'wb') as half:
            half.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr('matplotlib.figure.Figure.savefig', fail)
    with pytest.raises(KeyboardInterrupt):
        write_comparison(out, groups)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(out.iterdir()) == sorted(paths)


def test_percent_has_two_digits_and_a_running_run_is_read(make):
    folder = make('run', [58.333, 60.], metric=TOP1, classes=None)
    with open(folder / '20260101_000000/vis_data/scalars.json', 'a') as file:
        file.write('\n{"loss": 1.2, "st')
    result = compare({'run': [read_run(folder)]})
    assert '| 60.00 | 60.00 |' in markdown(result)
    assert result['step'] == 'epoch'


def test_less_is_better_of_a_loss(make):
    folder = make('run', [3., 1, 2, 2, 4, 3], metric='test/cross_entropy')
    result = compare({'run': [read_run(folder)]})
    figures = result['runs']['run']['seeds'][0]
    assert (figures['best'], figures['best_step']) == (1, 2)
    # Second half: 2, 4, 3.
    assert figures['largest_drop'] == 2 and figures['mean_change'] == 1.5
    assert 'largest rise' in markdown(result)
