"""Growth, lag and verdicts, from recordings whose numbers are known."""
import numpy as np
import pytest
from recordings import write_records, write_scalars

from mmadder.runs.losses import read_curves
from mmadder.runs.recording import read_recording
from mmadder.runs.stability import (
    growth,
    lag,
    study_run,
    table_of_studies,
    verdicts,
)

LAYER = 'backbone.layer1.0.conv2'


def test_growth_and_lag_by_hand(runs):
    recording = read_recording(runs['jumpy'])
    assert growth(recording, LAYER, 'filter_var') == pytest.approx(1.5**9)
    # Tracked 4 off, deviation sqrt(16 * 2 * 1.5^epoch).
    np.testing.assert_allclose(
        lag(recording, LAYER),
        [4 / (32 * 1.5**epoch)**.5 for epoch in range(1, 11)])


def test_verdicts_name_runs_and_layers(runs):
    studies = {name: study_run(read_curves(path), read_recording(path),
                               'accuracy/top1')
               for name, path in runs.items()}
    found = verdicts(studies, 'accuracy/top1')
    assert [name for name, _ in found] == ['steady', 'jumpy']
    assert found[0][1].startswith('Steadiest curve')
    assert found[1][1].startswith('Least steady curve')
    assert 'variance of weights grew up to 38.4 times, in backbone' in \
        found[1][1]
    assert 'grew' not in found[0][1]
    # Both lag: 4 over sqrt(32) is 0.71.
    assert 'up to 0.71 standard deviations' in found[0][1]


def test_broken_validations_are_named_without_a_recording(tmp_path):
    write_scalars(tmp_path / '1', range(1, 10), values=[
        *range(50, 58), float('nan')])
    studies = dict(a=study_run(read_curves(tmp_path), None, 'accuracy/top1'))
    (_, text), = verdicts(studies, 'accuracy/top1')
    assert text == '1 validations were not finite; layers were not recorded.'


def test_layers_that_broke_are_found(tmp_path):
    def change(epoch, entries):
        if epoch >= 3:
            entries[LAYER]['feature_mean'] = None

    write_records(tmp_path / '1', range(1, 6), change=change)
    write_scalars(tmp_path / '1', range(1, 6))
    study = study_run(read_curves(tmp_path), read_recording(tmp_path),
                      'accuracy/top1')
    assert study['not_finite'] == {LAYER: 3}


def test_table(runs):
    studies = {name: study_run(read_curves(path), recording, 'accuracy/top1')
               for (name, path), recording in zip(runs.items(), (
                   read_recording(runs['jumpy']), None))}
    header, rows = table_of_studies(studies, 'accuracy/top1')
    assert header[1] == 'accuracy/top1: last'
    (name, last, best, *_), bare = rows
    assert (name, last, best) == ('jumpy', 90, 96)
    assert rows[0][6] == pytest.approx(1.5**9)
    assert bare[0] == 'steady' and bare[5:] == (None, ) * 4
    assert all(len(row) == len(header) for row in rows)
