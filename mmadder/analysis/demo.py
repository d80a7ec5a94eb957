"""Pictures with what a model sees in them."""
import copy
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmdet.utils import get_test_pipeline_cfg
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from mmpretrain.visualization import UniversalVisualizer

from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.state_dict import load_network, read_checkpoint
from mmadder.config_nodes import own_metainfo, type_name
from mmadder.datasets.loading import CheckedLoadImageFromFile
from mmadder.errors import InputError
from mmadder.files import require_file, whole_file
from mmadder.inference import empty_quantized, is_quantized
from mmadder.models import build_model
from mmadder.reporting.figures import COLOURS

from .complexity import input_shape

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
SIDE = 480  # a picture whose shorter side is smaller is drawn larger


class Demo:
    """A detector or classifier for single pictures.

    Args:
        cfg: of MMDetection or MMPretrain, with a test dataset; its
            data need not be there.
        checkpoint: file; every key must fit the config.
        device: such as 'cpu' or 'cuda:0'.
    Raises:
        InputError: the config is of another kind, or the checkpoint does not
            fit.
    """

    def __init__(self, cfg: Config, checkpoint: str,
                 device: str = 'cpu') -> None:
        self.scope = cfg.get('default_scope')
        if self.scope not in ('mmdet', 'mmpretrain'):
            raise InputError('the config must be of MMDetection or '
                             'MMPretrain, its default_scope is '
                             f'{self.scope!r}')
        require_file(checkpoint, 'checkpoint')
        model = build_model(cfg)
        if is_quantized(checkpoint):
            model = empty_quantized(model)
        load_network(model, checkpoint)
        self.model = model.to(device).eval()
        self.pipeline = self._build_pipeline(cfg)
        self.loader = CheckedLoadImageFromFile()
        meta = self._dataset_meta(cfg)
        self.classes = trained_classes(
            read_checkpoint(checkpoint)) or meta.get('classes')
        self.visualizer = DetLocalVisualizer(line_width=2)
        self.visualizer.dataset_meta = dict(
            classes=self.classes, palette=meta.get('palette') or _palette(
                len(self.classes or ())))

    def predict(self, path: str | Path) -> BaseDataElement:
        """Return the data sample that the model makes of a picture file.

        Raises:
            InputError: the file is missing or no picture.
        """
        with torch.no_grad():
            data = self.pipeline(dict(img_path=str(path), img_id=0))
            return self.model.test_step(pseudo_collate([data]))[0].cpu()

    def draw(self, path: str | Path, out: str | Path,
             score_thr: float = 0.3) -> str:
        """Write a picture with boxes, or with its class, whole or not at all.

        Args:
            path: picture.
            out: file to write.
            score_thr: least score of a box.
        Returns:
            the number of boxes, or class and score.
        Raises:
            InputError: the file is missing or no picture.
        """
        image = mmcv.bgr2rgb(self.loader(dict(img_path=str(path)))['img'])
        sample = self.predict(path)
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
        steps = copy.deepcopy(get_test_pipeline_cfg(cfg))
        if not any('Load' in type_name(step) for step in steps):
            steps = [_LoadAsDataset(input_shape(cfg)), *steps]
        with DefaultScope.overwrite_default_scope(self.scope):
            return Compose(steps)

    def _dataset_meta(self, cfg):
        """Classes and palette of the config's test dataset, unread."""
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset or 'datasets' in dataset:
            dataset = dataset.get('dataset') or dataset.datasets[0]
        # The palette of a class is for its own list of classes.
        return dataset.get('metainfo') or own_metainfo(dataset, self.scope)


class _LoadAsDataset:
    """Load a picture as datasets that keep arrays, such as CIFAR, do: RGB."""

    def __init__(self, shape):
        self.height, self.width = shape
        self.loader = CheckedLoadImageFromFile()

    def __call__(self, results):
        results = self.loader(results)
        image = mmcv.imresize(results['img'], (self.width, self.height),
                              interpolation='area')
        results['img'] = np.ascontiguousarray(image[..., ::-1])
        return results


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
