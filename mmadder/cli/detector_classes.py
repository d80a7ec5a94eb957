"""One list of classes for heads, splits and evaluators of a detector.

MMDetection compares none of them: with one class too few in the head a
training runs to its end, and the last class is the background's; with a
validation set whose classes are in another order every figure is wrong.
"""

import json
import mmap
import os.path as osp
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import mmengine
from mmengine.config import Config

from mmadder.config_nodes import nodes, own_metainfo, type_name
from mmadder.datasets.voc_files import decode, parse_annotation, picture_names
from mmadder.errors import InputError
from mmadder.text import shorten

from .data_root import DATALOADERS, EVALUATORS

OPTION = '--classes'
# Heads that tell something else apart than the classes of the data.
OTHER_HEADS = ('rpn_head', 'semantic_head', 'semantic_fpn', 'panoptic')
# Bytes of a JSON file of which only the categories are read, and of those.
LARGE, LONGEST = 50e6, 2**22


def fit_detector_classes(cfg: Config,
                         dataloaders: Sequence[str] = DATALOADERS,
                         classes: Sequence[str] | None = None) -> str | None:
    """Compare the classes of a detector's config, and complete them.

    Classes that are named once serve all splits; where the config names none,
    they are those of the annotations. With ``classes`` everything follows.
    Heads with ``num_classes=None`` take the number of the classes.

    Args:
        cfg: of MMDetection, changed in place; others stay as they are.
        dataloaders: names of those whose data must exist; without any, only
            heads that say no number are looked at.
        classes: names, in the order of the labels.
    Returns:
        A sentence if something was completed.
    Raises:
        InputError: two splits, or data and a head, differ; the message has
            both, and says what to do. Or nothing tells a head's number.
    """
    datasets = {path: node for name in DATALOADERS if cfg.get(name)
                for path, node in nodes(cfg[name].get('dataset'),
                                        f'{name}.dataset')
                if _is_annotated(node)}
    heads = _heads(cfg.get('model'))
    if cfg.get('default_scope') != 'mmdet' or not datasets or not heads:
        if classes:
            raise InputError(f'{OPTION} is for detectors, and the config has '
                             'no head and data set of one')
        return None
    if classes:
        _require_names(classes)
        _set_everywhere(datasets, heads, classes)
        return None
    if not dataloaders:
        if None not in (node['num_classes'] for node in heads.values()):
            return None
        dataloaders = DATALOADERS  # as far as they are there
    named = {path: tuple(node['metainfo']['classes'])
             for path, node in datasets.items()
             if (node.get('metainfo') or {}).get('classes')}
    _require_one_list(named)
    sentence = None
    if named:
        classes = next(iter(named.values()))
    else:
        classes, source = _of_the_data(datasets, dataloaders)
        if source:
            sentence = (f'{len(classes)} classes, from {source}: '
                        f'{shorten(classes, 20)}')
    if classes is None:
        _require_numbers(heads, datasets)
        return None
    for path, node in datasets.items():
        if path not in named and (named or sentence):
            node['metainfo'] = {**(node.get('metainfo') or {}),
                                'classes': tuple(classes)}
    _require_counts(heads, classes)
    if named:
        _require_categories(cfg, dataloaders, classes)
    return sentence


def _is_annotated(node):
    """Whether a node is a data set itself, not a wrapper, and has files."""
    return bool(node.get('ann_file')) and 'type' in node


def _heads(model):
    """{dotted path: node} of the heads that know the number of classes."""
    return {path: node for path, node in nodes(model, 'model')
            if isinstance(node.get('num_classes', ''), int | None)
            and 'head' in path and not any(
                other in path for other in OTHER_HEADS)}


def _require_names(classes):
    if len(set(classes)) < len(classes):
        raise InputError(f'{OPTION} has a class twice: {" ".join(classes)}')


def _set_everywhere(datasets, heads, classes):
    for node in datasets.values():
        # A palette is for its own list of classes.
        metainfo = {key: value for key, value in
                    (node.get('metainfo') or {}).items() if key != 'palette'}
        node['metainfo'] = {**metainfo, 'classes': tuple(classes)}
    for node in heads.values():
        node['num_classes'] = len(classes)


def _require_one_list(named):
    lists = dict.fromkeys(named.values())
    if len(lists) < 2:
        return
    first, second, *_ = lists
    paths = [next(path for path in named if named[path] == names)
             for names in (first, second)]
    what = 'in another order' if sorted(first) == sorted(second) else \
        f'{len(first)} and {len(second)}'
    raise InputError(
        f'two splits have different classes ({what}):\n'
        f'  {paths[0]}: {shorten(first, 20)}\n'
        f'  {paths[1]}: {shorten(second, 20)}\n'
        f'Labels are positions in the list. Name it once, with {OPTION} or in '
        'metainfo of one data set')


def _require_numbers(heads, datasets):
    files = dict.fromkeys(_join(node.get('data_root'), node['ann_file'])
                          for node in datasets.values())
    for path, node in heads.items():
        if node['num_classes'] is None:
            raise InputError(
                f'{path} takes its number of classes from the data '
                f'(num_classes=None), and none are in {shorten(files)}: give '
                f'--data-root DIR, or name the classes with {OPTION} or in '
                'metainfo of one data set, or take the config that the '
                'training wrote into its work directory')


def _require_counts(heads, classes):
    for node in heads.values():
        if node['num_classes'] is None:
            node['num_classes'] = len(classes)
    wrong = {path: node['num_classes'] for path, node in heads.items()
             if node['num_classes'] != len(classes)}
    if wrong:
        path, count = next(iter(wrong.items()))
        options = ' '.join(f'{path}.num_classes={len(classes)}'
                           for path in wrong)
        raise InputError(
            f'{path} has num_classes={count}, the data have {len(classes)} '
            f'classes ({shorten(classes, 20)}): set --cfg-options {options}, '
            f'or name the classes with {OPTION}')


# ----------------------------------------------------------------- the data --


def _of_the_data(datasets, dataloaders):
    """(classes, where they are from) of a config that names none.

    The first split that is there decides, so that of training also where only
    the test set is needed: that may lack a class. The source is None where
    the kind of data set has a list of its own that fits its annotations.
    """
    for path, node in datasets.items():
        own = own_metainfo(node, 'mmdet').get('classes')
        found, source = _annotated_classes(node)
        if found is None and path.partition('.')[0] not in dataloaders:
            continue
        if own and (found is None or set(found) <= set(own)):
            return own, None
        if found:
            return found, source
    return None, None


def _annotated_classes(node):
    """Names in the annotations of a split, sorted, and the file."""
    path = _join(node.get('data_root'), node['ann_file'])
    if not osp.isfile(path):
        return None, path
    if path.endswith('.json'):
        return _json_classes(path), path
    if type_name(node) in ('XMLDataset', 'CheckedXMLDataset'):
        return _xml_classes(node, path), path
    return None, path


def _json_classes(path):
    categories = osp.getsize(path) > LARGE and _find_categories(path)
    if not categories:
        try:
            content = mmengine.load(path)
        except ValueError as error:  # of JSON, or of the encoding
            raise InputError(
                f'{path} cannot be read as JSON: {error}') from error
        categories = content.get('categories') if isinstance(
            content, dict) else None
    if not categories:
        return None
    _require_sound(categories, path)
    # By id, as CocoDataset numbers them.
    return [category['name'] for category in sorted(
        categories, key=lambda category: category['id'])]


def _require_sound(categories, path):
    if not isinstance(categories, list):
        raise InputError(f'{path}: categories must be a list, got '
                         f'{type(categories).__name__}')
    names = set()
    for index, one in enumerate(categories):
        found = one if isinstance(one, dict) else {}
        name = found.get('name')
        if type(found.get('id')) is not int or not isinstance(name, str) \
                or not name.strip():
            raise InputError(f'{path}: categories[{index}] must have an '
                             f'integer id and a name, got {one!r}')
        if name in names:
            raise InputError(f'{path}: two categories have the name {name!r}')
        names.add(name)


def _find_categories(path):
    """The categories of COCO's format without all the rest, or None."""
    with open(path, 'rb') as file, mmap.mmap(
            file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in re.finditer(rb'"categories"\s*:\s*(?=\[)', content):
            text = content[match.end():match.end() + LONGEST].decode(
                errors='replace')
            try:
                found, _ = json.JSONDecoder().raw_decode(text)
            except ValueError:
                continue
            if found and all(isinstance(one, dict) and {'id', 'name'} <= {
                    *one} for one in found):
                return found
    return None


def _xml_classes(node, path):
    folder = osp.join(
        _join(node.get('data_root'), (node.get('data_prefix') or {}).get(
            'sub_data_root', '')), node.get('ann_subdir', 'Annotations'))

    def file_of(name):
        return osp.join(folder, f'{name}.xml')

    with open(path, 'rb') as file:
        lines = decode(file.read()).splitlines()
    found = set()
    for name in picture_names(lines, lambda name: osp.isfile(file_of(name))):
        try:
            with open(file_of(name), 'rb') as file:
                found.update(element.name for element in
                             parse_annotation(file.read()).objects)
        except (InputError, OSError, ElementTree.ParseError):
            continue  # the data set names it, with others
    return sorted(found) or None


def _require_categories(cfg, dataloaders, classes):
    """Annotations in COCO's format must have the classes."""
    files = {path: _join(node.get('data_root'), node['ann_file'])
             for name in (*dataloaders, *_evaluators(dataloaders))
             for path, node in nodes(cfg.get(name), name)
             if str(node.get('ann_file') or '').endswith('.json')}
    for path, file in files.items():
        if not osp.isfile(file):
            continue
        found = _json_classes(file)
        if found is None:
            continue
        missing = [name for name in classes if name not in found]
        if missing:
            raise InputError(
                f'{path}: {file} has no categories '
                f'{shorten(missing, 5)}, only {shorten(found, 20)}; name the '
                f'classes with {OPTION}')


def _evaluators(dataloaders):
    return [name for name in EVALUATORS
            if f'{name.partition("_")[0]}_dataloader' in dataloaders]


def _join(root, path):
    return osp.join(root or '', path)
