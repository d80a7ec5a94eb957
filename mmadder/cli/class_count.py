"""Let an ImageNet config run on folders with other classes."""

import os.path as osp
import re
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.fileio import list_from_file

from mmadder.cli.data_root import DATALOADERS, EVALUATORS
from mmadder.config_nodes import nodes, type_name
from mmadder.datasets import class_folders
from mmadder.errors import InputError
from mmadder.text import shorten

OPTION = 'model.head.num_classes'
IMAGENET = 1000
KINDS = ('ImageNet', 'CheckedImageNet')


def fit_classes(cfg: Config,
                dataloaders: Sequence[str] = DATALOADERS,
                given: int | None = None) -> str | None:
    """Set the number of classes to that of the data.

    For ``ImageNet`` datasets, MMPretrain's and ours. With one folder per
    class, the folders of all splits must be equal, and the config gets their
    number (head, preprocessor, accuracies that exist) and their names. With
    ``meta/<split>.txt`` the config's number stays, and must be enough.

    Args:
        cfg: changed in place; other datasets leave it as it is.
        dataloaders: those whose data must exist.
        given: the number that the user gave.
    Returns:
        A sentence if the number or the accuracies changed.
    Raises:
        InputError: classes are missing in a split, ``given`` is not the
            number of folders, or a label is too large for it.
    """
    datasets = _labelled(cfg, DATALOADERS)
    needed = _labelled(cfg, dataloaders)
    configured = (cfg.model.get('head') or {}).get('num_classes')
    if not needed or configured is None:
        return None
    names = _folder_names(datasets, needed)
    if names and given not in (None, len(names)):
        raise InputError(
            f'{OPTION}={given} is given, but {needed[0].data_root} has '
            f'{len(names)} classes: {shorten(names)}')
    count = len(names) if names else configured
    for node in needed:
        _require_labels_below(count, node)
    changes = _set_count(cfg, count)
    _set_names(datasets, names or [str(i) for i in range(count)])
    root = needed[0].data_root
    return f'{root}: {count} classes, so {", ".join(changes)}' \
        if changes else None


def _labelled(cfg, dataloaders):
    """Return the configs of ImageNet datasets; split 'test' has no labels."""
    found = [node for name in dataloaders
             for _, node in nodes(cfg.get(name))]
    return [node for node in found if type_name(node) in KINDS
            and node.get('split') != 'test' and node.get('with_label', True)]


def _folder(dataset):
    """Return the folder with one folder per class, None for a list."""
    prefix = dataset.get('data_prefix') or dataset.get('split', '')
    if _label_file(dataset) or not isinstance(prefix, str):
        return None
    return osp.join(dataset.get('data_root', ''), prefix)


def _label_file(dataset):
    root = dataset.get('data_root', '')
    if dataset.get('ann_file'):
        return osp.join(root, dataset.ann_file)
    path = osp.join(root, 'meta', f'{dataset.get("split")}.txt')
    return path if osp.isfile(path) else None


def _folder_names(datasets, needed):
    """Return the sorted class folders of all splits, None without any."""
    required = {_folder(dataset) for dataset in needed}
    found = {}
    known = _with_pictures(datasets)
    for folder in dict.fromkeys(map(_folder, datasets)):
        if folder is None or '://' in folder:
            continue
        if osp.isdir(folder):
            found[folder] = _class_names(folder, datasets, known)
        elif folder in required:
            raise InputError(
                f'{folder} does not exist; expected one folder of pictures '
                'per class in it, or a list of pictures and labels in '
                f'meta/{osp.basename(folder)}.txt of the data root')
    first, *others = found or [None]
    for other in others:
        _require_equal(first, found[first], other, found[other])
    if found and not found[first]:
        raise InputError(f'{first} has no folders, expected one per class')
    return found.get(first)


def _with_pictures(datasets):
    """Classes that have a picture in some split; others may lack them."""
    return {name for folder in set(map(_folder, datasets))
            if folder is not None and osp.isdir(folder)
            for name in class_folders(folder)[0]}


def _class_names(folder, datasets, known):
    names, others = class_folders(folder, known)
    stock = any(_folder(node) == folder and type_name(node) == 'ImageNet'
                for node in datasets)
    if others and stock:
        raise InputError(
            f'{folder} has folders that are no classes: {shorten(others)}. '
            "MMPretrain's ImageNet would count them: remove them, or use "
            "type='CheckedImageNet'")
    return names


def _require_equal(first, names, other, other_names):
    missing, unknown = (
        shorten(sorted(set(a) - set(b))) or 'none'
        for a, b in ((names, other_names), (other_names, names)))
    if names != other_names:
        raise InputError(
            f'{other} must have the classes of {first}, because labels are '
            f'positions in the sorted list of folders; missing: {missing}; '
            f'unknown: {unknown}')


def _require_labels_below(count, dataset):
    path = _label_file(dataset)
    if path is None:
        return
    for number, line in enumerate(list_from_file(path), 1):
        label = line.strip().rpartition(' ')[2]
        if not label.isdecimal():
            raise InputError(f'{path}, line {number}: expected a picture and '
                             f'a label, such as "a.jpg 3", got {line!r}')
        if int(label) >= count:
            raise InputError(
                f'{path}, line {number}: label {label} needs more than the '
                f'{count} classes of the config; give their number with '
                f'--cfg-options {OPTION}=N')


def _set_count(cfg, count):
    """Set the number of classes everywhere; return 'key=value (was ...)'."""
    changes = []
    head = cfg.model.head
    before, cfg.model.head.num_classes = head.num_classes, count
    if before != count:
        changes.append(f'{OPTION}={count} (was {before})')
    for owner in (cfg, cfg.get('data_preprocessor'),
                  cfg.model.get('data_preprocessor')):
        if owner and 'num_classes' in owner:
            owner['num_classes'] = count
    evaluators = nodes([cfg.get(name) for name in EVALUATORS])
    for node in (head, *(node for _, node in evaluators)):
        topk = node.get('topk')
        if isinstance(topk, (list, tuple)) and max(topk) > count:
            node['topk'] = tuple(k for k in topk if k <= count)
            changes.append(f'accuracy of top {node["topk"]} (was {topk})')
    return list(dict.fromkeys(changes))


def _set_names(datasets, names):
    """Name the classes, unless they are ImageNet's or the config does."""
    if len(names) == IMAGENET and all(
            re.fullmatch(r'n\d{8}|\d+', name) for name in names):
        return
    for dataset in datasets:
        metainfo = dataset.get('metainfo') or {}
        if 'classes' not in metainfo and 'classes' not in dataset:
            dataset['metainfo'] = {**metainfo, 'classes': tuple(names)}
