"""Configs are read with what the user changes."""

import pytest

from mmadder import cli
from mmadder.errors import InputError

LOADERS = ('train_dataloader', 'test_dataloader')
CONFIG = """
default_scope = {scope!r}
data_root = 'none/'
train_dataloader = dict(batch_size=2, num_workers=1, pin_memory=False,
                        dataset=dict(type='Any', data_root=data_root))
test_dataloader = dict(batch_size=2, num_workers=0,
                       dataset=dict(type='Any', data_root=data_root))
model = dict(type='Any')
"""


@pytest.fixture
def config(tmp_path):
    def write(scope='mmdet'):
        path = tmp_path / 'config.py'
        path.write_text(CONFIG.format(scope=scope))
        return str(path)

    return write


def test_settings_and_data_root(config, tmp_path):
    cfg = cli.load_config(
        config(), LOADERS, data_root=str(tmp_path),
        cfg_options={'model.depth': 18, 'train_dataloader.batch_size': 5})
    assert cfg.model.depth == 18
    assert cfg.train_dataloader.batch_size == 5
    assert cfg.test_dataloader.dataset.data_root == f'{tmp_path}/'


def test_data_are_looked_for_where_they_are_needed(config):
    cli.load_config(config())
    with pytest.raises(InputError, match="'none/' of test_dataloader"):
        cli.load_config(config(), ('test_dataloader', ))


def test_what_cannot_be_meant(config, tmp_path):
    with pytest.raises(InputError, match="config 'no.py' does not exist"):
        cli.load_config('no.py')
    part = tmp_path / 'part.py'
    part.write_text('lr = 1')
    with pytest.raises(InputError, match="part.py' has no model: give a whol"):
        cli.load_config(str(part))
    with pytest.raises(InputError, match='use --data-root DIR'):
        cli.load_config(config(), cfg_options=dict(data_root='x'))


def test_typing_errors(config, tmp_path):
    path = tmp_path / 'odd.py'
    path.write_text('model = dict(')
    with pytest.raises(InputError, match='odd.py cannot be read: .*never'):
        cli.load_config(str(path))
    text = tmp_path / 'odd.txt'
    text.write_text('model = 1')
    with pytest.raises(InputError, match='odd.txt cannot be read: Only py'):
        cli.load_config(str(text))
    path.write_text(CONFIG.format(scope='mmdet') + 'hooks = [dict(a=1)]')
    with pytest.raises(InputError, match='--cfg-options does not fit'):
        cli.load_config(str(path), cfg_options={'hooks.99.a': 2})


def test_settings_of_the_caller_stay(config, tmp_path):
    options = {'model.depth': 18}
    cli.load_config(config(), cfg_options=options, data_root=str(tmp_path))
    assert options == {'model.depth': 18}


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_defaults_of_mmpretrains_own_tools(config, scope):
    cfg = cli.load_config(config(scope))
    if scope == 'mmdet':
        assert 'collate_fn' not in cfg.train_dataloader
        return
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.test_dataloader.persistent_workers is False
    assert cfg.test_dataloader.pin_memory is True
    assert cfg.test_dataloader.collate_fn == dict(type='default_collate')
    assert 'val_dataloader' not in cfg
