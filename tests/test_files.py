import json
import math

import numpy as np
import pytest
import torch

from mmadder.errors import InputError
from mmadder.files import (
    require_file,
    save_checkpoint,
    whole_file,
    write_json,
    write_text,
)


def test_missing_file_is_named(tmp_path):
    require_file('https://example.org/a.pth', 'checkpoint')
    path = tmp_path / 'a.pth'
    with pytest.raises(InputError, match="checkpoint '.*a.pth' does not exis"):
        require_file(path, 'checkpoint')
    path.touch()
    require_file(path, 'checkpoint')
    with pytest.raises(InputError, match='does not exist'):
        require_file(tmp_path, 'config')


def test_folders_are_made_and_nothing_is_left_beside(tmp_path):
    path = tmp_path / 'a' / 'b' / 'c.txt'
    write_text(path, 'grün')
    assert path.read_text(encoding='utf-8') == 'grün'
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / 'a.png'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        assert partial.suffix == '.png'  # which savefig goes by
        partial.write_text('half')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_directory_in_the_way(tmp_path):
    with pytest.raises(InputError, match='is a directory'):
        write_text(tmp_path, '')


def test_checkpoint_that_fails_half_way(tmp_path):
    class Unwritable:
        def __reduce__(self):
            raise RuntimeError('the disk is full')

    path = tmp_path / 'a.pth'
    save_checkpoint(dict(x=torch.ones(2)), path)
    with pytest.raises(RuntimeError, match='disk is full'):
        save_checkpoint(dict(x=torch.ones(2), y=Unwritable()), path)
    assert torch.load(path)['x'].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan(tmp_path):
    path = tmp_path / 'a.json'
    write_json(path, {1: math.nan, 'b': (math.inf, np.float32(.5)),
                      'c': np.arange(2), 'd': [np.int64(3), None, 'x']})

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse) == {
        '1': None, 'b': [None, .5], 'c': [0, 1], 'd': [3, None, 'x']}
