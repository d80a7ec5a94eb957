"""MMEngine's log of a training, whole, resumed or missing."""
import json

import pytest
from recordings import write_scalars

from mmadder.errors import InputError
from mmadder.runs.scalars import read_scalars, run_folders


def test_of_a_step_run_twice_the_later_counts(tmp_path):
    write_scalars(tmp_path / '20260101_000000', (1, 2), values=[.25, .5])
    later = tmp_path / '20260102_000000'
    write_scalars(later, (2, ), values=[.75])
    train, val = read_scalars(tmp_path)
    assert [record['step'] for record in train] == [5, 10, 15, 20]
    assert [record['accuracy/top1'] for record in val] == [.25, .75]
    assert run_folders(tmp_path) == [tmp_path / '20260101_000000', later]
    assert read_scalars(later) == read_scalars(
        later / 'vis_data' / 'scalars.json')
    assert len(read_scalars(later)[0]) == 2 and run_folders(later) == [later]


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    write_scalars(tmp_path, (1, ))
    with open(tmp_path / 'vis_data' / 'scalars.json', 'a') as file:
        file.write('\n' + json.dumps(dict(loss=1., step=11))[:-4])
    train, _ = read_scalars(tmp_path)
    assert [record['step'] for record in train] == [5, 10]


def test_no_log_is_said(tmp_path):
    with pytest.raises(InputError, match='no vis_data/scalars.json in'):
        read_scalars(tmp_path)
