"""MMEngine's log of a training, whole, resumed or missing."""
import json

import pytest
from recordings import write_scalars

from mmadder.errors import InputError
from mmadder.runs.run_pictures import plot_training
from mmadder.runs.scalars import (
    last_training,
    read_scalars,
    run_folders,
    step_name,
)


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


def write(folder, *records):
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data' / 'scalars.json').write_text(
        '\n'.join(map(json.dumps, records)))


@pytest.mark.parametrize('begin, steps, values', [
    (1, [5, 10], [.9]),  # anew
    (3, [5, 10, 15, 20, 25, 30], [.1, .2, .9]),  # goes on
])
def test_what_is_trained_again_is_not_of_the_training_before(
        tmp_path, begin, steps, values):
    """Nor is what came behind it."""
    write_scalars(tmp_path / '20260101_000000', (1, 2, 3, 4),
                  values=[.1, .2, .3, .4])
    write_scalars(tmp_path / '20260102_000000', (begin, ), values=[.9])
    write(tmp_path / '20260103_000000')  # ended before its first line
    train, val = read_scalars(tmp_path)
    assert [record['step'] for record in train] == steps
    assert [record['accuracy/top1'] for record in val] == values
    folders = [folder.name[6:8] for folder in last_training(tmp_path)]
    assert folders == (['02', '03'] if begin == 1 else ['01', '02', '03'])


def test_validations_without_epochs_have_their_iteration(tmp_path):
    """MMEngine logs them at epoch 0, all of them."""
    write(tmp_path / '1', dict(loss=1., step=50), dict(loss=1., step=100),
          dict(x=.1, step=0), dict(loss=1., step=150), dict(x=.2, step=0))
    write(tmp_path / '2', dict(loss=1., step=150), dict(x=.3, step=0))
    train, val = read_scalars(tmp_path)
    assert [(record['step'], record['x']) for record in val] == [
        (100, .1), (150, .3)]
    assert step_name(train, val) == 'iteration'
    axis = plot_training(dict(a=(train, val)), 'x').axes[1]
    assert axis.get_xlabel() == 'iteration'


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    write_scalars(tmp_path, (1, ))
    with open(tmp_path / 'vis_data' / 'scalars.json', 'a') as file:
        file.write('\n' + json.dumps(dict(loss=1., step=11))[:-4])
    train, _ = read_scalars(tmp_path)
    assert [record['step'] for record in train] == [5, 10]


def test_no_log_is_said(tmp_path):
    with pytest.raises(InputError, match='no vis_data/scalars.json in'):
        read_scalars(tmp_path)
