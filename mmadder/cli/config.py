"""Configs as the command lines use them."""

from collections.abc import Sequence

from mmengine.config import Config

from mmadder.config_nodes import library
from mmadder.errors import InputError
from mmadder.files import require_file

from .class_count import OPTION, fit_classes
from .data_root import DATALOADERS, replace_data_root, require_data_roots
from .detector_classes import fit_detector_classes
from .output import print_once

ADVICE = 'give a whole config, not a part that others have as _base_'


def load_config(path: str,
                dataloaders: Sequence[str] = (),
                *,
                cfg_options: dict | None = None,
                data_root: str | None = None,
                classes: Sequence[str] | None = None) -> Config:
    """Read a config, apply what the user changes, and look for its data.

    Args:
        path: file of mmadder, MMPretrain or MMDetection.
        dataloaders: names of those whose data must exist, such as
            'test_dataloader'; classes are then compared with the data, and
            completed (:func:`mmadder.cli.class_count.fit_classes`,
            :func:`mmadder.cli.detector_classes.fit_detector_classes`).
        cfg_options: settings to change, by their dotted keys.
        data_root: directory in place of the config's.
        classes: of a detector, in the order of the labels.
    Raises:
        InputError: the config or its data do not exist, it has no model, or
            two places of it name different classes.
    """
    require_file(path, 'config')
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, OSError) as error:
        raise InputError(f'config {path} cannot be read: {error}') from error
    cfg_options = cfg_options or {}
    if 'data_root' in cfg_options:
        raise InputError('--cfg-options data_root=... reaches no dataset; '
                         'use --data-root DIR')
    try:
        cfg.merge_from_dict(cfg_options)
    except (LookupError, TypeError, AssertionError) as error:
        raise InputError(f'--cfg-options does not fit the config: {error}'
                         ) from error
    if 'model' not in cfg:
        raise InputError(f'config {path!r} has no model: {ADVICE}')
    if not cfg.get('default_scope') and library(cfg.model):
        cfg.default_scope = library(cfg.model)  # the new style sets none
    if data_root is not None:
        replace_data_root(cfg, data_root)
    require_data_roots(cfg, dataloaders)
    print_once(fit_classes(cfg, dataloaders, cfg_options.get(OPTION)))
    print_once(fit_detector_classes(cfg, dataloaders, classes))
    if cfg.get('default_scope') == 'mmpretrain':
        _add_dataloader_defaults(cfg)
    return cfg


def _add_dataloader_defaults(cfg):
    """Set what MMPretrain's own tools set and its configs rely on."""
    for name in DATALOADERS:
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('pin_memory', True)
            loader.setdefault('persistent_workers', loader.num_workers > 0)
            loader.setdefault('collate_fn', dict(type='default_collate'))
