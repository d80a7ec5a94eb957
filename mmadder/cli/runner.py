"""Runners of MMEngine, and how a command ends."""

import argparse
import contextlib
import gc
import glob
import logging
import os
import os.path as osp
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from mmadder.checkpoints import safe_loading
from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.files import require_file

from .config import ADVICE, load_config
from .options import read_trust
from .output import print_once

HOOKS = ('LossScaleHook', 'AdderClipGradHook', 'AdderCheckHook',
         'CheckpointCheckHook')
REPORT = 'DetectionReportHook'
# What a runner needs of a config, by the dataloaders that are needed.
PARTS = dict(
    train_dataloader=('train_dataloader', 'train_cfg', 'optim_wrapper'),
    test_dataloader=('test_dataloader', 'test_cfg', 'test_evaluator'))
INTERRUPTED = 128 + 2  # the shell's exit code for Ctrl-C
WRONG_INPUT = 2  # argparse's
REPEAT_AFTER = .1  # seconds


def runner_config(args: argparse.Namespace,
                  dataloaders: Sequence[str]) -> Config:
    """Return the config for :func:`build_runner`.

    Args:
        args: of :func:`make_parser`.
        dataloaders: names of those whose data must exist.
    Raises:
        InputError: the config or its data do not exist, or it is a part of
            one.
    """
    read_trust(args)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, dataloaders, cfg_options=args.cfg_options,
                      data_root=args.data_root, classes=args.classes)
    missing = [name for task in dataloaders for name in PARTS.get(task, ())
               if cfg.get(name) is None]
    if missing:
        raise InputError(f'config {args.config!r} has no '
                         f'{", ".join(missing)}: {ADVICE}')
    cfg.launcher = args.launcher
    stem = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = (args.work_dir or cfg.get('work_dir')
                    or osp.join('work_dirs', stem))
    _add_hooks(cfg)
    if 'visualizer' in cfg:
        # A second run in one process would write its curves into the first
        # one's directory. Scripts of MMDetection need the name.
        cfg.visualizer.pop('name', None)
    return cfg


def resume(cfg: Config, checkpoint: str) -> None:
    """Let a run go on from a checkpoint.

    Args:
        cfg: changed in place.
        checkpoint: a file, or 'auto' for the last one in the work
            directory. Where there is none yet, the run starts from the
            beginning, ``load_from`` included.
    """
    if checkpoint == 'auto':
        checkpoint = _last_checkpoint(cfg.work_dir)
        if checkpoint is None:
            print_once(f'No checkpoint in {cfg.work_dir} yet: training '
                        'starts from the beginning.')
            return
    require_file(checkpoint, 'checkpoint')
    cfg.resume, cfg.load_from = True, checkpoint


def build_runner(cfg: Config) -> Runner:
    """Return the config's runner; several processes work without GPU too."""
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        # MMEngine's own start picks a GPU for each process.
        torch.distributed.init_process_group('gloo')
        wrapper = ConfigDict(
            type='MMDistributedDataParallel', broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
        wrapper.update(cfg.get('model_wrapper_cfg') or {}, device_ids=None)
        cfg.model_wrapper_cfg = wrapper
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


@contextlib.contextmanager
def short_messages(interrupted: str) -> Iterator[None]:
    """End with a sentence, not a traceback, where the user can act.

    An InputError or FileNotFoundError, or a data set without pictures, ends
    with exit code 2, Ctrl-C with 130 and the text ``interrupted``. Other
    errors pass. Where a run began, its log gets the error, and the last line
    says where that log is. Checkpoints are read as data only, unless
    :func:`read_trust` lifts that.
    """
    earlier = MMLogger.get_current_instance()
    tool = osp.basename(sys.argv[0])
    try:
        with safe_loading.data_only(), _no_lost_interrupt():
            yield
    except KeyboardInterrupt:
        print_once(interrupted, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        log = _note_in_log(error, earlier)
        empty = _empty_data(error)
        message = empty or _message(error)
        if empty or isinstance(error, (InputError, FileNotFoundError)):
            if log and '\n' in message:
                message += f'\n{tool}: {_headline(message)}'
            print(f'{tool}: {message}{log}', file=sys.stderr)
            sys.exit(WRONG_INPUT)
        if log:
            kind, headline = type(error).__name__, _headline(message)
            error.add_note(f'{tool}: {kind}{headline and ": "}{headline}{log}')
        raise
    finally:
        if torch.distributed.is_initialized():
            # A runner is a cycle that keeps Gloo's threads. One that takes
            # the GIL while the interpreter goes aborts this process, and
            # with it the others, which may still write.
            gc.collect()
            torch.distributed.destroy_process_group()


def _empty_data(error):
    """A sentence for MMEngine's error about a data set of nothing, or ''."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == '_serialize_data' \
                and isinstance(error, ValueError):
            dataset = frame.f_locals['self']
            return (f'no picture of {dataset.ann_file or dataset.data_root} '
                    'is left: none is listed, or filter_cfg of the data set '
                    'leaves out those without boxes; tools/check_dataset.py '
                    'tells what is there')
    return ''


def _message(error):
    # A worker process sends its traceback along, before the message.
    return str(error).rpartition(f'{type(error).__name__}: ')[2].strip()


def _headline(message):
    return message.partition('\n')[0].rstrip(':')


def _note_in_log(error, earlier):
    """Write an error into the log of a run that began; say where that is."""
    logger = MMLogger.get_current_instance()
    files = [handler for handler in logger.handlers
             if isinstance(handler, logging.FileHandler)]
    if logger is earlier or not files:
        return ''
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, 'the run failed', (),
        (type(error), error, error.__traceback__))
    for handler in files:
        handler.handle(record)
    return f'; log: {files[0].baseFilename}'


@contextlib.contextmanager
def _no_lost_interrupt():
    """Repeat a Ctrl-C that Python drops, as it does in destructors.

    The callbacks of a fork, so the start of every worker process, drop it
    too, and the training would go on.
    """
    previous = sys.unraisablehook

    def repeat(unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return previous(unraisable)
        timer = threading.Timer(REPEAT_AFTER, signal.pthread_kill, (
            threading.main_thread().ident, signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _last_checkpoint(work_dir):
    """Return the last complete checkpoint in the work dir, or None."""
    path = find_latest_checkpoint(work_dir)
    if path == '':
        # Killed while it noted the name, so the file itself is complete.
        names = [name for kind in ('epoch', 'iter')
                 for name in glob.glob(osp.join(work_dir, f'{kind}_*.pth'))]
        return max(names, key=osp.getmtime, default=None)
    if path is None or osp.exists(path):
        return path
    return osp.join(work_dir, osp.basename(path))  # the work dir was moved


def _add_hooks(cfg):
    hooks = list(cfg.get('custom_hooks') or [])
    present = {type_name(hook) for hook in hooks}
    cfg.custom_hooks = hooks + [dict(type=name) for name in HOOKS
                                if name not in present]
    if cfg.get('default_scope') == 'mmdet' and REPORT not in present:
        # Where a config can switch it off: default_hooks=dict(report=None).
        cfg.default_hooks = {'report': dict(type=REPORT),
                             **(cfg.get('default_hooks') or {})}
