"""Move a config to another data root."""

import os
import os.path as osp
from collections.abc import Sequence

from mmengine.config import Config

from mmadder.errors import InputError

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def replace_data_root(cfg: Config, root: str) -> None:
    """Let every dataloader and evaluator of a config read below ``root``.

    Replaces the config's data root wherever it begins a path: in nested
    datasets (RepeatDataset, ConcatDataset, ...), annotation files of
    evaluators, lists of both, and the variable ``data_root`` itself. Setting
    only that variable changes nothing, because the config file has used it
    already.

    Args:
        cfg: changed in place.
        root: an existing directory, or a URL of a file backend.
    Raises:
        InputError: ``root`` does not exist, or the config has no data root,
            or several that lie in different places.
    """
    _require_directory(root, '--data-root')
    old = _common_root(cfg)
    for name in DATALOADERS + EVALUATORS:
        for parent, key, value in list(_strings(cfg.get(name))):
            if key != 'type':
                parent[key] = _moved(value, old, root)
    if 'data_root' in cfg:
        cfg.data_root = _moved(cfg.data_root, old, root)


def require_data_roots(cfg: Config,
                       dataloaders: Sequence[str] = DATALOADERS) -> None:
    """Raise InputError for a data root of the config that does not exist."""
    for name in dataloaders:
        for root in _data_roots(cfg.get(name)):
            _require_directory(root, f'{name} of the config')


def _require_directory(root, owner):
    if '://' not in root and not osp.isdir(root):
        raise InputError(
            f'data root {root!r} of {owner} is not a directory, seen from '
            f'{os.getcwd()}; pass the one with the data as --data-root DIR')


def _common_root(cfg):
    """Return the one root of the config below which all datasets lie."""
    roots = {osp.normpath(root) for name in DATALOADERS
             for root in _data_roots(cfg.get(name))}
    variable = cfg.get('data_root')
    candidates = roots | ({osp.normpath(variable)} if variable else set())
    if not candidates:
        raise InputError('the config has no data_root that --data-root could '
                         'replace; set the paths with --cfg-options')
    for candidate in sorted(candidates, key=len):
        if all(_is_below(root, candidate) for root in roots):
            return candidate
    raise InputError(
        f'the config has data roots in different places, {sorted(roots)}, '
        'and --data-root replaces only one; set them with --cfg-options')


def _data_roots(node):
    return [value for _, key, value in _strings(node)
            if key == 'data_root' and value]


def _strings(node):
    """Yield (parent, key, value) for each string in nested dicts and lists."""
    if isinstance(node, dict):
        items = dict.items(node)
    elif isinstance(node, list):
        items = enumerate(node)
    else:
        return
    for key, value in items:
        if isinstance(value, str):
            yield node, key, value
        else:
            yield from _strings(value)


def _is_below(path, root):
    return path == root or path.startswith(root + '/')


def _moved(value, old, new):
    """Return ``value`` with the leading directory ``old`` made ``new``."""
    path = osp.normpath(value)
    if not value or not _is_below(path, old):
        return value
    slash = '/' if value.endswith('/') else ''
    return new.rstrip('/') + path[len(old):] + slash
