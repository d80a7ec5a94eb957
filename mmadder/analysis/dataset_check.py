"""What is in the data sets of a config, before anyone trains on them."""
import collections
import copy
import os.path as osp
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmadder.config_nodes import nodes, type_name
from mmadder.datasets import CheckedXMLDataset
from mmadder.datasets.picture_headers import read_header
from mmadder.datasets.voc import Findings
from mmadder.datasets.voc_files import VocAnnotation, VocObject
from mmadder.errors import InputError
from mmadder.text import shorten

from .detection_pictures import draw_boxes, tile

SIZES = 3  # most frequent sizes of pictures that are listed
QUANTILES = (.05, .5, .95)
TOO_SMALL, TOO_LARGE = .5, 2  # times the least and the largest anchor
SHARE = .05  # of the boxes that may lie beyond
SIDE, COLUMNS = 256, 4  # of the sheet: height of a picture in pixels
YELLOW = (80, 230, 250)


class Sample(NamedTuple):
    """One picture.

    Attributes:
        path: '' where the data set keeps no files.
        size: (width, height) in pixels.
        boxes: (N, 4), two corners each, in pixels; of a classifier (0, 4).
        labels: (N, ), of a classifier (1, ).
        ignored: boxes that are no targets.
    """
    path: str
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    ignored: int


class Split:
    """What one data set of a config holds.

    Attributes:
        name: such as 'val_dataloader'; several where they are equal.
        source: split file or folder.
        classes: names in the order of the labels.
        samples (list[Sample]): of all pictures that can be used.
        problems (list[str]): what stops a training.
        findings (list[str]): what does not, but may spoil it.
    """

    def __init__(self, name: str, node: dict, scope: str) -> None:
        self.name, self.samples, self.problems = name, [], []
        with DefaultScope.overwrite_default_scope(scope):
            self.dataset = DATASETS.build(
                dict(node, pipeline=[], lazy_init=True))
        self.source = self.dataset.ann_file or getattr(
            self.dataset, 'img_prefix', self.dataset.data_root)
        noted = Findings(self.source, self.dataset.test_mode)
        try:
            infos = self._read()
            for info in infos:
                self._add(info, noted)
            self._require_rest(infos)
        except (InputError, OSError) as error:
            self.problems.append(str(error))
        self.classes = self._classes()
        noted = getattr(self.dataset, 'findings', noted)
        self.findings = noted.sentences(sys.maxsize) + self._missing()

    def counts(self) -> list[tuple[str, int, int]]:
        """(class, labels, pictures) of every class."""
        labels = collections.Counter(
            int(label) for sample in self.samples for label in sample.labels)
        pictures = collections.Counter(
            int(label) for sample in self.samples
            for label in set(sample.labels.tolist()))
        return [(name, labels[i], pictures[i])
                for i, name in enumerate(self.classes)]

    def boxes(self) -> np.ndarray:
        """(N, 2), width and height of all boxes."""
        return np.concatenate([np.zeros((0, 2))] + [
            sample.boxes[:, 2:] - sample.boxes[:, :2]
            for sample in self.samples])

    def _read(self):
        if not isinstance(self.dataset, CheckedXMLDataset):
            try:
                return self.dataset.load_data_list()
            except (LookupError, TypeError, ValueError,
                    AssertionError) as error:
                kind = type(self.dataset).__name__
                raise InputError(
                    f'{self.source} has an entry that {kind} cannot read: '
                    f'{type(error).__name__} {error}') from error
        infos, self.problems = self.dataset.read_samples()
        if not self.problems:
            self.dataset.require_objects(infos)
        return infos

    def _require_rest(self, infos):
        """Raise InputError if there is nothing to train with, or to test."""
        if self.problems:
            return  # say more
        if not self.samples:
            raise InputError(f'no picture is listed in {self.source}')
        self.dataset.data_list = infos
        if not self.dataset.filter_data():
            raise InputError(
                f'none of {len(self.samples)} pictures in {self.source} is '
                'left by filter_cfg of the data set: none has a box to train '
                'with')

    def _classes(self):
        """Names; numbers for a classifier whose data set has no names."""
        labels = [label for sample in self.samples for label in sample.labels]
        return tuple(self.dataset.metainfo.get('classes') or
                     map(str, range(max(labels, default=-1) + 1)))

    def _add(self, info, noted):
        path, instances = info.get('img_path', ''), info.get('instances', [])
        if isinstance(self.dataset, CheckedXMLDataset):
            size = info['width'], info['height']
        elif path:
            try:
                header = read_header(path)
            except InputError as error:
                self.problems.append(str(error))
                return
            size = header.width, header.height
            _note(info, header, noted)
        else:
            size = info['img'].shape[1::-1]
        boxes = np.array([instance['bbox'] for instance in instances],
                         dtype=float).reshape(-1, 4)
        labels = [instance['bbox_label'] for instance in instances] \
            if 'instances' in info else info.get('gt_label', [])
        self.samples.append(Sample(
            path, size, boxes, np.ravel(labels).astype(int),
            sum(instance['ignore_flag'] for instance in instances)))

    def _missing(self):
        if not self.samples:
            return []
        none = [name for name, labels, _ in self.counts() if not labels]
        return [f'classes without any example: {shorten(none, sys.maxsize)}'
                ] if none else []


def _note(info, header, noted):
    """Note sizes and boxes of what no checked data set has looked at."""
    if 'width' not in info:
        return
    name = osp.basename(info['img_path'])
    boxes = [instance['bbox'] for instance in info['instances']]
    counted_from_1 = [VocObject('', False, [tuple(x + 1 for x in box)])
                      for box in boxes]
    noted.compare(name, header, VocAnnotation(
        (info['width'], info['height']), '', counted_from_1))
    for box in boxes:
        noted.examine(box, (header.width, header.height), name)


def read_splits(cfg: Config, dataloaders: Sequence[str]) -> Iterator[Split]:
    """Look at every data set of some dataloaders, each once.

    Args:
        cfg: of MMDetection or MMPretrain.
        dataloaders: names; a None in the config is left out.
    """
    owners = collections.defaultdict(list)
    found = [(name, node) for name in dataloaders if cfg.get(name)
             for node in _data_sets(cfg[name].dataset)]
    for name, node in found:
        owners[str(node)].append(name)
    for _, node in found:
        names = owners.pop(str(node), None)
        if names:
            yield Split(', '.join(dict.fromkeys(names)),
                        copy.deepcopy(dict(node)),
                        cfg.get('default_scope', 'mmengine'))


def _data_sets(node):
    """The data sets in RepeatDataset, ConcatDataset and the like."""
    inner = node.get('datasets') or [node[key] for key in ('dataset', )
                                     if key in node]
    return [found for part in inner for found in _data_sets(part)] \
        if inner else [node]


def describe(split: Split, cfg: Config) -> list[str]:
    """Sentences about pictures and boxes of a split.

    Args:
        split: with samples.
        cfg: what resizes pictures, and the anchors.
    """
    sizes = collections.Counter(
        '{}x{}'.format(*sample.size) for sample in split.samples)
    lines = ['sizes of pictures: ' + shorten(
        [f'{size} ({count})' for size, count in sizes.most_common()], SIZES)]
    boxes = split.boxes()
    if not len(boxes):
        return lines
    empty = sum(not len(sample.labels) for sample in split.samples)
    ignored = sum(sample.ignored for sample in split.samples)
    lines.append(f'boxes: {len(boxes)}, ignored {ignored}; pictures without '
                 f'any: {empty}')
    lines.append('sides of boxes (root of the area; 5, 50, 95 %): '
                 f'{_quantiles(_sides(boxes))} pixels')
    factor = _resizing(cfg, split)
    if factor is None:
        return lines
    seen = _sides(np.concatenate([
        (sample.boxes[:, 2:] - sample.boxes[:, :2]) * factor(sample.size)
        for sample in split.samples]))
    lines[-1] += f'; resized for the model: {_quantiles(seen)}'
    anchors = _anchors(cfg)
    if anchors:
        least, largest = anchors
        lines[-1] += f'; anchors: {least:.0f} to {largest:.0f}'
        small = np.mean(seen < TOO_SMALL * least)
        large = np.mean(seen > TOO_LARGE * largest)
        for share, word, other in ((small, 'smaller than half the least',
                                    'enlarge'),
                                   (large, 'larger than twice the largest',
                                    'shrink')):
            if share > SHARE:
                lines.append(
                    f'{share:.0%} of the boxes are {word} anchor: change '
                    'scales of the anchor_generator, or let Resize '
                    f'{other} the pictures')
    return lines


def _sides(boxes):
    return np.sqrt(np.clip(boxes, 0, None).prod(1))


def _quantiles(sides):
    return ', '.join(f'{side:.0f}' for side in np.quantile(sides, QUANTILES))


def _resizing(cfg: Config, split: Split) -> Callable | None:
    """Return a function: size of a picture to (factor of width, height).

    None where a split is resized at random, or by a step of another kind.
    """
    loader = cfg[split.name.partition(',')[0]]
    steps = [node for _, node in nodes(loader.dataset)
             if 'Resize' in type_name(node) or 'Mosaic' in type_name(node)]
    if not steps:
        return lambda size: np.ones(2)
    if len({str(step) for step in steps}) > 1 or type_name(
            steps[0]) != 'Resize' or 'scale' not in steps[0]:
        return None
    step, = steps[:1]

    def factor(size):
        if step.get('keep_ratio'):
            scale = mmcv.rescale_size(size, tuple(step.scale), True)[1]
            return np.array([scale, scale])
        return np.array(step.scale) / size

    return factor


def _anchors(cfg: Config) -> tuple[float, float] | None:
    """Sides of the least and the largest anchor, in pixels."""
    found = [node['anchor_generator'] for _, node in nodes(cfg.model)
             if 'anchor_generator' in node]
    if not found:
        return None
    with DefaultScope.overwrite_default_scope('mmdet'):
        levels = TASK_UTILS.build(copy.deepcopy(found[0])).base_anchors
    sides = np.concatenate([
        _sides((level[:, 2:] - level[:, :2]).numpy()) for level in levels])
    return sides.min(), sides.max()


def draw_sheet(split: Split, count: int) -> np.ndarray | None:
    """Draw annotations into some pictures, spread over the split.

    Args:
        split: with samples.
        count: pictures.
    Returns:
        (H, W, 3) uint8, BGR; None if no picture is a file that can be read.
    """
    samples = [sample for sample in split.samples if sample.path]
    chosen = np.unique(np.linspace(
        0, len(samples) - 1, min(count, len(samples))).astype(int))
    tiles = []
    for sample in (samples[i] for i in chosen):
        # Turned as EXIF says, like in training.
        picture = cv2.imread(sample.path)
        if picture is None:
            split.problems.append(f'picture {sample.path} cannot be decoded')
            continue
        boxes = sample.boxes if len(sample.boxes) or not len(
            sample.labels) else np.array([[0, 0, *sample.size]])
        tiles.append(draw_boxes(
            picture, SIDE, boxes,
            [split.classes[label] for label in sample.labels], YELLOW))
    return tile(tiles, min(COLUMNS, len(tiles))) if tiles else None


def shared_pictures(splits: Sequence[Split]) -> list[str]:
    """Say which splits have pictures in common: those measure nothing."""
    found = []
    for i, first in enumerate(splits):
        names = {Path(s.path).resolve() for s in first.samples if s.path}
        for second in splits[i + 1:]:
            both = [Path(s.path).name for s in second.samples
                    if s.path and Path(s.path).resolve() in names]
            if both and 'train' in f'{first.name} {second.name}':
                found.append(
                    f'{first.name} and {second.name} have {len(both)} '
                    f'pictures in common: {shorten(both)}')
    return found
