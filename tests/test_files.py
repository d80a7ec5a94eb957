"""Files are written whole, or the old one stays."""
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmadder.errors import InputError
from mmadder.files import (
    require_file,
    require_writable,
    save_checkpoint,
    whole_file,
    write_json,
    write_text,
)

KILLED = '''
import os, signal, sys, torch
from mmadder.files import save_checkpoint

class Killing:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)

save_checkpoint([torch.ones(10000), Killing()], sys.argv[1])
'''


def test_missing_file():
    with pytest.raises(InputError, match="config 'none.py' does not exist, "
                       f'seen from {os.getcwd()}$'):
        require_file('none.py', 'config')
    with pytest.raises(InputError, match=f'{os.getcwd()}; write it$'):
        require_file('none.py', 'config', 'write it')
    require_file(__file__, 'config')
    require_file('https://example.org/x.pth', 'checkpoint')


def test_checkpoint_that_raises_half_way(tmp_path):
    path = tmp_path / 'out.pth'
    save_checkpoint(dict(a=torch.ones(2)), path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(dict(a=torch.ones(10000), b=lambda: 0), path)
    assert torch.load(path)['a'].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_of_a_killed_process(tmp_path):
    path = tmp_path / 'out.pth'
    save_checkpoint(dict(a=torch.ones(2)), path)
    process = subprocess.run([sys.executable, '-c', KILLED, path])
    assert process.returncode == -signal.SIGKILL
    assert torch.load(path)['a'].tolist() == [1, 1]


def test_folders_are_made_and_directories_refused(tmp_path):
    write_text(tmp_path / 'a' / 'b' / 'ä.txt', 'Ä')
    assert (tmp_path / 'a' / 'b' / 'ä.txt').read_bytes() == 'Ä'.encode()
    with pytest.raises(InputError, match='is a directory, expected a file'):
        write_text(tmp_path / 'a', '')


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / 'file').write_text('')
    for check in (require_writable, lambda path: write_text(path, '')):
        with pytest.raises(InputError, match='file/a.txt cannot be written'):
            check(tmp_path / 'file' / 'a.txt')
    require_writable(tmp_path / 'new' / 'a.txt')
    assert list((tmp_path / 'new').iterdir()) == []


def test_name_of_the_unfinished_file_has_the_suffix(tmp_path):
    """Writers such as Matplotlib's choose the format by it."""
    with whole_file(tmp_path / 'a.png') as partial:
        assert partial.suffix == '.png'
        partial.touch()
        assert not (tmp_path / 'a.png').exists()
    assert (tmp_path / 'a.png').exists() and not partial.exists()


def test_numbers_that_are_none_become_null(tmp_path):
    write_json(tmp_path / 'a.json', {
        'a': [float('nan'), np.float32('inf'), 1.5], 2: np.arange(2),
        'b': np.bool_(True), 'c': (None, 'x')})
    text = (tmp_path / 'a.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        'a': [None, None, 1.5], '2': [0, 1], 'b': True, 'c': [None, 'x']}
