"""How a command begins, resumes and ends."""

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log

from mmadder import cli
from mmadder.errors import InputError


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Return a function that writes a config without data, and its options."""
    monkeypatch.setenv('LOCAL_RANK', '0')  # the code under test sets it

    def write(text=''):
        path = tmp_path / 'small.py'
        path.write_text(f"model = dict(type='Any')\n{text}")
        parser = cli.make_parser('Do')
        return parser.parse_args([str(path)])

    return write


def hook_types(cfg):
    return [hook['type'] for hook in cfg.custom_hooks]


def test_hooks_are_added_once(config):
    own = ['LossScaleHook', 'AdderClipGradHook', 'AdderCheckHook',
           'CheckpointCheckHook']
    assert hook_types(cli.runner_config(config(), ())) == own
    cfg = cli.runner_config(config(
        "custom_hooks = [dict(type='EMAHook'), dict(type='AdderClipGradHook',"
        ' priority=3)]'), ())
    assert hook_types(cfg) == [
        'EMAHook', 'AdderClipGradHook', 'LossScaleHook', 'AdderCheckHook',
        'CheckpointCheckHook']
    assert cfg.custom_hooks[1].priority == 3


@pytest.mark.parametrize('text, report', [
    ('', 'absent'), ("default_scope = 'mmpretrain'", 'absent'),
    ("default_scope = 'mmdet'", dict(type='DetectionReportHook')),
    ("default_scope = 'mmdet'\ndefault_hooks = dict(report=None)", None)])
def test_detectors_get_a_report_unless_the_config_refuses(
        config, text, report):
    cfg = cli.runner_config(config(text), ())
    assert (cfg.get('default_hooks') or {}).get('report', 'absent') == report


def test_work_dir(config):
    assert cli.runner_config(config(), ()).work_dir == 'work_dirs/small'
    args = config("work_dir = 'own'")
    assert cli.runner_config(args, ()).work_dir == 'own'
    args.work_dir = 'given'
    assert cli.runner_config(args, ()).work_dir == 'given'


@pytest.mark.parametrize('error, message', [
    (InputError('--x is wrong'), '--x is wrong'),
    (FileNotFoundError('no a.txt'), 'no a.txt'),
    # As a worker process of a data loader sends it.
    (InputError('Caught InputError in worker.\nTraceback:\n  line 3\n'
                'mmadder.errors.InputError: b.jpg is empty\n'),
     'b.jpg is empty')])
def test_what_the_user_can_mend_is_a_sentence(
        monkeypatch, capsys, error, message):
    monkeypatch.setattr(sys, 'argv', ['tools/do.py'])
    with pytest.raises(SystemExit) as stop:
        with cli.short_messages('Interrupted.'):
            raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err == f'do.py: {message}\n'


@pytest.mark.parametrize('error, end', [
    (InputError('--x is wrong'), '--x is wrong'),
    (InputError('2 pictures are wrong:\n  a.jpg\n  b.jpg'),
     '2 pictures are wrong'),
    (ValueError('a bug\nof two lines'), 'ValueError: a bug'),
    (RuntimeError('Caught RuntimeError in worker.\nTraceback:\n  line 3\n'
                  'RuntimeError: of a worker\n'), 'RuntimeError: of a worker'),
    (AssertionError(), 'AssertionError')])
def test_last_line_of_a_run_with_a_log(tmp_path, capsys, monkeypatch, error,
                                       end):
    """Says what failed and where the log is, and the log says it too."""
    monkeypatch.setattr(sys, 'argv', ['tools/do.py'])
    log = tmp_path / 'run.log'
    with pytest.raises((SystemExit, type(error))) as stop:
        with cli.short_messages('Interrupted.'):
            MMLogger.get_instance(str(tmp_path), log_file=str(log))
            print_log('progress', 'current')
            raise error
    said = capsys.readouterr().err if stop.type is SystemExit else ''.join(
        traceback.format_exception(stop.value))
    assert said.splitlines()[-1] == f'do.py: {end}; log: {log}'
    assert ''.join(traceback.format_exception_only(error)).splitlines()[0] \
        in log.read_text()


def test_log_of_an_earlier_run_is_not_named(tmp_path, capsys):
    MMLogger.get_instance(str(tmp_path), log_file=str(tmp_path / 'run.log'))
    with pytest.raises(SystemExit):
        with cli.short_messages('Interrupted.'):
            raise InputError('--x is wrong')
    assert capsys.readouterr().err.endswith(': --x is wrong\n')


def test_runner_of_the_named_type(monkeypatch):
    """A config may name its own; the default is MMEngine's."""
    built = []
    monkeypatch.setattr(
        'mmadder.cli.runner.RUNNERS', SimpleNamespace(build=built.append))
    cfg = Config(dict(launcher='none', runner_type='Special'))
    cli.build_runner(cfg)
    assert built == [cfg]


def test_real_bugs_keep_their_traceback():
    with pytest.raises(ValueError, match='bug'):
        with cli.short_messages('Interrupted.'):
            raise ValueError('bug')


@pytest.mark.skipif(sys.platform != 'linux', reason='names of threads')
def test_no_thread_of_gloo_outlives_a_command():
    """One that takes the GIL while the interpreter goes aborts the process."""

    def threads():
        names = (path.read_text() for path in
                 Path('/proc/self/task').glob('*/comm'))
        return [name for name in names if 'gloo' in name]

    class Cycle:  # such as a runner
        pass

    with cli.short_messages('Interrupted.'):
        torch.distributed.init_process_group(
            'gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
        cycle = Cycle()
        cycle.itself = cycle
        cycle.model = torch.nn.parallel.DistributedDataParallel(
            torch.nn.Linear(2, 2))
        assert threads()
        del cycle
    assert not threads()


def test_interrupt_where_exceptions_are_dropped(capsys):
    class Dropping:

        def __del__(self):
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stop:
            with cli.short_messages('Interrupted.'):
                Dropping()
                time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert stop.value.code == 130
    assert capsys.readouterr().err == 'Interrupted.\n'


@pytest.mark.parametrize('default', [None, 'pretrained.pth'])
def test_resume_finds_the_last_checkpoint(tmp_path, capsys, default):
    cfg = Config(dict(work_dir=str(tmp_path), load_from=default))
    cli.resume(cfg, 'auto')
    assert cfg.load_from == default and 'resume' not in cfg
    assert 'from the beginning' in capsys.readouterr().out
    (tmp_path / 'epoch_3.pth').touch()
    # As written from another directory, or before the work dir was moved.
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    cli.resume(cfg, 'auto')
    assert cfg.load_from == str(tmp_path / 'epoch_3.pth') and cfg.resume
    # As left by a run that was killed while it wrote the name.
    (tmp_path / 'last_checkpoint').write_text('')
    os.utime(tmp_path / 'epoch_3.pth', (0, 0))
    (tmp_path / 'epoch_10.pth').touch()
    (tmp_path / 'best_accuracy_epoch_1.pth').touch()
    cli.resume(cfg, 'auto')
    assert cfg.load_from == str(tmp_path / 'epoch_10.pth')
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    (tmp_path / 'epoch_3.pth').unlink()
    with pytest.raises(InputError, match='epoch_3.pth'):
        cli.resume(cfg, 'auto')
