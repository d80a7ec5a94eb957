"""Arguments that command lines share."""

import argparse

import pytest
import torch

from mmadder import cli
from mmadder.checkpoints import safe_loading


@pytest.fixture
def parser():
    return argparse.ArgumentParser('tool')


def test_settings_of_the_config(parser):
    cli.add_config_options(parser)
    args = parser.parse_args([
        '--cfg-options', 'a.b=1', 'c=[1,x]', 'd=None', '--data-root', 'D'])
    assert args.cfg_options == {'a.b': 1, 'c': [1, 'x'], 'd': None}
    assert args.data_root == 'D'
    assert parser.parse_args([]).cfg_options == {}


@pytest.mark.parametrize('text, value', [
    ('/my runs/a b.pth', '/my runs/a b.pth'), ("'x y'", 'x y'), (' 3', 3),
    ('[a, b]', ['a', 'b']), ('1, 2', [1, 2]), ('a=b', 'a=b')])
def test_blanks_stay_in_paths(parser, text, value):
    cli.add_cfg_options(parser)
    args = parser.parse_args(['--cfg-options', f'key={text}'])
    assert args.cfg_options == dict(key=value)


def test_a_setting_without_a_value(parser, capsys):
    cli.add_cfg_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'key'])
    assert 'key: expected KEY=VALUE' in capsys.readouterr().err


def test_training_and_testing_start_alike():
    parser = cli.make_parser('Do')
    args = parser.parse_args(['config.py', '--local-rank', '2'])
    assert args.config == 'config.py' and args.local_rank == 2
    assert args.launcher == 'none' and not args.trust_checkpoint
    assert parser.parse_args(['c', '--local_rank=3']).local_rank == 3
    with pytest.raises(SystemExit):
        parser.parse_args(['c', '--launcher', 'other'])


@pytest.mark.parametrize('trust', [False, True])
def test_trust_ends_with_the_command(parser, tmp_path, trust):
    class Code:

        def __reduce__(self):
            return print, ('ran', )

    path = tmp_path / 'code.pth'
    torch.save(Code(), path)
    cli.add_trust_option(parser)
    args = parser.parse_args(['--trust-checkpoint'] if trust else [])
    with safe_loading.data_only():
        cli.read_trust(args)
        if trust:
            torch.load(path)
        else:
            with pytest.raises(ValueError, match='--trust-checkpoint'):
                torch.load(path)
    with safe_loading.data_only():
        with pytest.raises(ValueError, match='--trust-checkpoint'):
            torch.load(path)


def test_device(parser, capsys):
    cli.add_device_option(parser)
    assert parser.parse_args(['--device', 'cpu']).device == 'cpu'
    for name in ('nonsense', 'cuda:999'):
        with pytest.raises(SystemExit):
            parser.parse_args(['--device', name])
        assert f'argument --device: {name}: ' in capsys.readouterr().err
