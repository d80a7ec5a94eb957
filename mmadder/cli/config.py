"""What the command lines in ``tools/`` share."""

import argparse
import contextlib
import glob
import os
import os.path as osp
import signal
import sys
import threading

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner, find_latest_checkpoint

from mmadder.checkpoints import safe_loading
from mmadder.cli.class_count import OPTION, fit_classes
from mmadder.cli.data_root import (DATALOADERS, replace_data_root,
                                      require_data_roots)
from mmadder.errors import InputError

HOOKS = ('LossScaleHook', 'AdderClipGradHook', 'CheckpointCheckHook')
REPORT = 'DetectionReportHook'
INTERRUPTED = 128 + 2  # the shell's exit code for Ctrl-C
WRONG_INPUT = 2  # argparse's
REPEAT_AFTER = .1  # seconds


def make_parser(description):
    """Return a parser with the arguments of training and testing alike."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file of mmadder, MMPretrain '
                        'or MMDetection')
    parser.add_argument('--work-dir', help='directory of logs and '
                        'checkpoints, default: work_dirs/CONFIG_NAME')
    parser.add_argument('--data-root', help='directory to use in place of '
                        "the config's data_root, in every dataset and "
                        'evaluator')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        default={}, metavar='KEY=VALUE',
                        help='settings to change in the config, such as '
                        'train_cfg.max_epochs=1; lists as key="[a,b]"')
    add_trust_option(parser)
    parser.add_argument('--launcher', default='none',
                        choices=['none', 'pytorch', 'slurm', 'mpi'],
                        help='what started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def add_trust_option(parser):
    """Add --trust-checkpoint; :func:`read_trust` obeys it."""
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that may run code: only for '
                        'files of people that you trust')


def read_trust(args):
    """Read checkpoints as data only, unless the user trusts them."""
    if args.trust_checkpoint:
        safe_loading.trust()


def load_config(args, dataloaders):
    """Read the config and apply the arguments of :func:`make_parser`.

    Args:
        args (Namespace): the parsed arguments.
        dataloaders (tuple of str): those whose data must exist.
    Returns:
        Config: ready for :func:`build_runner`.
    Raises:
        InputError: the config or its data do not exist.
    """
    read_trust(args)
    require_file(args.config, 'config')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    if 'data_root' in args.cfg_options:
        raise InputError('--cfg-options data_root=... reaches no dataset; '
                         'use --data-root DIR')
    cfg.merge_from_dict(args.cfg_options)
    if args.data_root is not None:
        replace_data_root(cfg, args.data_root)
    require_data_roots(cfg, dataloaders)
    _print_once(fit_classes(cfg, dataloaders, args.cfg_options.get(OPTION)))
    cfg.launcher = args.launcher
    stem = osp.splitext(osp.basename(args.config))[0]
    cfg.work_dir = (args.work_dir or cfg.get('work_dir')
                    or osp.join('work_dirs', stem))
    _add_hooks(cfg)
    if cfg.get('default_scope') == 'mmpretrain':
        _add_dataloader_defaults(cfg)
    return cfg


def require_file(path, owner):
    """Raise InputError unless ``path`` is a file, or a URL."""
    if '://' not in path and not osp.isfile(path):
        raise InputError(f'{owner} {path!r} does not exist, seen from '
                         f'{os.getcwd()}')


def resume(cfg, checkpoint):
    """Let a run go on from a checkpoint.

    Args:
        cfg (Config): changed in place.
        checkpoint (str): a file, or 'auto' for the last one in the work
            directory. Where there is none yet, the run starts from the
            beginning, ``load_from`` included.
    """
    if checkpoint == 'auto':
        checkpoint = _last_checkpoint(cfg.work_dir)
        if checkpoint is None:
            _print_once(f'No checkpoint in {cfg.work_dir} yet: training '
                        'starts from the beginning.')
            return
    require_file(checkpoint, 'checkpoint')
    cfg.resume, cfg.load_from = True, checkpoint


def build_model(cfg):
    """Return the config's model on the CPU, with random weights."""
    scope = cfg.get('default_scope', 'mmengine')
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:  # as the runner does
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model)


def add_device_option(parser):
    """Add ``--device`` for tools that run without MMEngine's runner."""
    def device(name):
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise argparse.ArgumentTypeError(
                f'{name}: {str(error).splitlines()[0]}') from error
        return name

    parser.add_argument('--device', type=device, default=get_device(),
                        help='default: a GPU if there is one')


def build_runner(cfg):
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
def short_messages(interrupted):
    """End with a sentence, not a traceback, where the user can act.

    An InputError or FileNotFoundError ends with exit code 2, Ctrl-C with 130
    and the text ``interrupted``. Other errors pass. Checkpoints are read as
    data only, unless :func:`read_trust` lifts that.
    """
    try:
        with safe_loading.data_only(), _no_lost_interrupt():
            yield
    except KeyboardInterrupt:
        _print_once(interrupted, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (InputError, FileNotFoundError) as error:
        # A worker process sends its traceback along, before the message.
        message = str(error).rpartition(f'{type(error).__name__}: ')[2]
        print(f'{osp.basename(sys.argv[0])}: {message.strip()}',
              file=sys.stderr)
        sys.exit(WRONG_INPUT)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


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


def _print_once(text, file=None):
    if text and int(os.environ.get('RANK', 0)) == 0:
        print(text, file=file)


def _add_hooks(cfg):
    hooks = list(cfg.get('custom_hooks') or [])
    types = [hook['type'] for hook in hooks if isinstance(hook, dict)]
    present = {getattr(type_, '__name__', type_) for type_ in types}
    cfg.custom_hooks = hooks + [dict(type=name) for name in HOOKS
                                if name not in present]
    if cfg.get('default_scope') == 'mmdet' and REPORT not in present:
        # Where a config can switch it off: default_hooks=dict(report=None).
        cfg.default_hooks = {'report': dict(type=REPORT),
                             **(cfg.get('default_hooks') or {})}


def _add_dataloader_defaults(cfg):
    """Set what MMPretrain's own tools set and its configs rely on."""
    for name in DATALOADERS:
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', loader.num_workers > 0)
            loader.setdefault('collate_fn', dict(type='default_collate'))
