"""Pictures with what a model sees in them."""
import copy
import os
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement
from mmpretrain.visualization import UniversalVisualizer
from torch import nn

from mmadder.config_nodes import own_metainfo, type_name
from mmadder.datasets.loading import picture_errors
from mmadder.datasets.voc_files import SUFFIXES
from mmadder.errors import InputError
from mmadder.files import whole_file
from mmadder.reporting.figures import COLOURS

from .complexity import input_shape

SIDE = 480  # a picture whose shorter side is smaller is drawn larger


class Predictor:
    """A network for single pictures; :func:`mmadder.load` makes one.

    Args:
        model: in evaluation mode; its ``test_step`` gives data samples.
        cfg: of MMDetection or MMPretrain, with a test dataset; its data need
            not be there.
        classes: names, in the order of the labels; default: the config's.

    Raises:
        InputError: the config is of another kind.
    """

    def __init__(self, model: nn.Module, cfg: Config,
                 classes: Sequence[str] | None = None) -> None:
        self.scope = require_scope(cfg)
        self.model, self.cfg = model, cfg
        self.load, self.pipeline = self._build_pipeline(cfg)
        meta = self._dataset_meta(cfg)
        self.classes = classes or meta.get('classes')
        self.visualizer = DetLocalVisualizer(line_width=2)
        self.visualizer.dataset_meta = dict(
            classes=self.classes, palette=meta.get('palette') or _palette(
                len(self.classes or ())))

    def __call__(self, picture: str | Path | np.ndarray) -> BaseDataElement:
        """Return MMDetection's or MMPretrain's data sample of a picture.

        Args:
            picture: file, or (H, W, 3) uint8 in OpenCV's order, BGR.

        Raises:
            InputError: the file is missing or no picture, or the array is
                not one.
        """
        with torch.no_grad():
            data = self.pipeline(self.load(_as_results(picture)))
            return self.model.test_step(pseudo_collate([data]))[0].cpu()

    def draw(self, picture: str | Path | np.ndarray, out: str | Path,
             score_thr: float = 0.3) -> str:
        """Write a picture with boxes, or with its class, whole or not at all.

        Args:
            picture: see :meth:`__call__`.
            out: file to write, with the suffix of a picture.
            score_thr: least score of a box.
        Returns:
            the number of boxes, or class and score.
        Raises:
            InputError: the file is missing or no picture, or ``out`` has
                another suffix.
        """
        if Path(out).suffix.lower() not in SUFFIXES:
            raise InputError(f'{out}: expected a name that ends with one of '
                             f'{", ".join(SUFFIXES)}')
        image = mmcv.bgr2rgb(_Load()(_as_results(picture))['img'])
        sample = self(picture)
        with whole_file(out) as partial:
            if self.scope == 'mmdet':
                return self._draw_boxes(image, sample, str(partial),
                                        score_thr)
            return self._draw_class(image, sample, str(partial))

    def _draw_class(self, image, sample, out):
        UniversalVisualizer().visualize_cls(
            image, sample, self.classes, draw_gt=False, out_file=out,
            resize=max(SIDE, min(image.shape[:2])))
        label = int(sample.pred_label)
        name = self.classes[label] if self.classes else f'class {label}'
        return f'{name}, score {float(sample.pred_score[label]):.2f}'

    def _draw_boxes(self, image, sample, out, score_thr):
        found = sample.pred_instances
        scale = SIDE / min(image.shape[:2])
        if scale > 1 and 'masks' not in found:
            image = mmcv.imresize(image, (round(image.shape[1] * scale),
                                          round(image.shape[0] * scale)))
            found.bboxes = found.bboxes * scale
        self.visualizer.add_datasample(
            '', image, sample, draw_gt=False, out_file=out,
            pred_score_thr=score_thr)
        count = int((found.scores > score_thr).sum())
        return f'{count} box' + 'es' * (count != 1)

    def _build_pipeline(self, cfg):
        """What makes an array of a file, and what comes behind that."""
        steps = copy.deepcopy(get_test_pipeline_cfg(cfg))
        load = _LoadAsDataset(input_shape(cfg))
        with DefaultScope.overwrite_default_scope(self.scope):
            if any('LoadImage' in type_name(step) for step in steps):
                load = _Load(TRANSFORMS.build(steps.pop(0)))
            return load, Compose(steps)

    def _dataset_meta(self, cfg):
        """Classes and palette of the config's test dataset, unread."""
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset or 'datasets' in dataset:
            dataset = dataset.get('dataset') or dataset.datasets[0]
        # The palette of a class is for its own list of classes.
        return dataset.get('metainfo') or own_metainfo(dataset, self.scope)


def require_scope(cfg: Config) -> str:
    """A config's scope, 'mmdet' or 'mmpretrain', or InputError."""
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain'):
        raise InputError('the config must be of MMDetection or MMPretrain, '
                         f'its default_scope is {scope!r}')
    return scope


class _Load:
    """A pipeline's own loading, with errors that name the file.

    Args:
        step: loads a file; an array is left as it is.
    """

    def __init__(self, step=None):
        self.step = step or LoadImageFromFile()

    def __call__(self, results):
        if 'img' in results:
            return results
        with picture_errors(results['img_path']):
            return self.step(results)


class _LoadAsDataset(_Load):
    """Load a picture as datasets that keep arrays, such as CIFAR, do: RGB."""

    def __init__(self, shape):
        super().__init__()
        self.height, self.width = shape

    def __call__(self, results):
        results = super().__call__(results)
        image = mmcv.imresize(results['img'], (self.width, self.height),
                              interpolation='area')
        results['img'] = np.ascontiguousarray(image[..., ::-1])
        return results


def _as_results(picture):
    """What a pipeline begins with."""
    if not isinstance(picture, str | os.PathLike | np.ndarray):
        raise InputError('a picture must be a file or an array (H, W, 3), got '
                         f'{type(picture).__name__}; call once per picture')
    if not isinstance(picture, np.ndarray):
        return dict(img_path=str(picture), img_id=0)
    if picture.ndim != 3 or picture.shape[2] != 3 or \
            picture.dtype != np.uint8 or not picture.size:
        raise InputError(
            'a picture as array must be (H, W, 3) of uint8 in the order BGR, '
            f'got {picture.shape} of {picture.dtype}')
    shape = picture.shape[:2]
    return dict(img=picture.copy(), img_path='', img_id=0, img_shape=shape,
                ori_shape=shape)


def find_pictures(path: str | Path) -> list[Path]:
    """Return the picture file, or those of a folder in order of names.

    Raises:
        InputError: it does not exist, or the folder has no pictures.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir()
                       if file.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f'{path} has no pictures, expected files that '
                             f'end with {", ".join(SUFFIXES)}')
        return found
    if not path.is_file():
        raise InputError(f'picture {path} does not exist')
    return [path]


def _palette(count):
    """RGB colours of few classes; mmdet's random ones for more."""
    if not 0 < count <= len(COLOURS):
        return 'random'
    return [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
