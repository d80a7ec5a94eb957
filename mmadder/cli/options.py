"""Arguments that several command lines have."""

import argparse

import torch
from mmengine.config import DictAction
from mmengine.device import get_device

from mmadder.checkpoints import safe_loading
from mmadder.errors import InputError


def make_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments of training and testing alike."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file of mmadder, MMPretrain '
                        'or MMDetection')
    parser.add_argument('--work-dir', help='directory of logs and '
                        'checkpoints, default: work_dirs/CONFIG_NAME')
    add_config_options(parser)
    add_classes_option(parser)
    add_trust_option(parser)
    parser.add_argument('--launcher', default='none',
                        choices=['none', 'pytorch', 'slurm', 'mpi'],
                        help='what started the processes')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


class SettingAction(DictAction):
    """MMEngine's, but that paths and names keep their blanks."""

    @staticmethod
    def _parse_iterable(val):
        if any(sign in val for sign in ',()[]'):
            return DictAction._parse_iterable(val)
        return DictAction._parse_int_float_bool(val.strip('\'" '))

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} {value}: expected KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, of tools that read a config but no data."""
    parser.add_argument('--cfg-options', nargs='+', action=SettingAction,
                        default={}, metavar='KEY=VALUE',
                        help='settings to change in the config, such as '
                        'train_cfg.max_epochs=1; lists as key="[a,b]"')


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-root`` and ``--cfg-options``, for :func:`load_config`."""
    parser.add_argument('--data-root', help='directory to use in place of '
                        "the config's data_root, in every dataset and "
                        'evaluator')
    add_cfg_options(parser)


def add_classes_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes``, for :func:`load_config`."""
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help='classes of a detector in the order of their '
                        'labels, for its heads and all data sets')


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add --trust-checkpoint; :func:`read_trust` obeys it."""
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that may run code: only for '
                        'files of people that you trust')


def read_trust(args: argparse.Namespace) -> None:
    """Read checkpoints as data only, unless the user trusts them."""
    if args.trust_checkpoint:
        safe_loading.trust()


def require_device(name: str) -> None:
    """Raise InputError unless PyTorch can use a device."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'{name}: {str(error).splitlines()[0]}') from error


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` for tools that run without MMEngine's runner."""
    def device(name):
        try:
            require_device(name)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return name

    parser.add_argument('--device', type=device, default=get_device(),
                        help='default: a GPU if there is one')
