"""Annotated pictures of a detection config, as attacks take them."""

import hashlib
import json

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor

from mmadder.config_nodes import type_name
from mmadder.errors import InputError


class Pictures:
    """The test pictures of a detection config, in batches of one size.

    Padding to a common size would let batch statistics see the padding, so
    pictures of other sizes come in other batches.

    Args:
        cfg: of MMDetection, with ``test_dataloader``.
        count: pictures, chosen at random; default: all.
        batch_size: default: the config's.
        seed: of the choice.
    Attributes:
        batches (list[list[int]]): indices of pictures.
        digest (str): of pictures and annotations, and how they are loaded.
    Raises:
        InputError: the pipeline loads no boxes, or resizes them; or there
            are fewer pictures.
    """

    def __init__(self, cfg: Config, count: int | None = None,
                 batch_size: int | None = None, seed: int = 0):
        loader = cfg.test_dataloader
        self.batch_size = batch_size or loader.batch_size
        if self.batch_size < 1:
            raise InputError(
                f'batch size must be positive, got {batch_size}')
        require_late_boxes(loader.dataset)
        with DefaultScope.overwrite_default_scope(
                cfg.get('default_scope', 'mmdet')):
            self.dataset = DATASETS.build(dict(loader.dataset))
        self.size = len(self.dataset) if count is None else count
        if not 1 <= self.size <= len(self.dataset):
            raise InputError(f'{count} images were asked for, the test set '
                             f'has {len(self.dataset)}')
        self.batches = self._group(self._choose(seed))
        self.digest = self._digest(loader.dataset)
        self._samples = {}

    def _choose(self, seed):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.dataset), generator=generator)
        return sorted(order[:self.size].tolist())

    def _group(self, chosen):
        groups = {}
        for index in chosen:
            info = self.dataset.get_data_info(index)
            groups.setdefault((info['height'], info['width']), []).append(
                index)
        return [group[start:start + self.batch_size]
                for group in groups.values()
                for start in range(0, len(group), self.batch_size)]

    def _digest(self, settings):
        what = [str(settings.get('pipeline')), self.batches]
        for batch in self.batches:
            for info in map(self.dataset.get_data_info, batch):
                with open(info['img_path'], 'rb') as file:
                    picture = hashlib.sha256(file.read()).hexdigest()
                what.append([picture, [
                    [box['bbox'], box['bbox_label'], box['ignore_flag']]
                    for box in info['instances']]])
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def load(self, batch: int) -> tuple[Tensor, list[DetDataSample]]:
        """Return a batch.

        Returns:
            Images (N, 3, H, W), float32, in [0, 1], channels as loaded; and
            annotations, in pixels of the files.
        """
        loaded = [self.dataset[index] for index in self.batches[batch]]
        shapes = {tuple(item['inputs'].shape) for item in loaded}
        if len(shapes) > 1:
            raise InputError('the test pipeline makes several sizes of '
                             f'pictures of one size: {sorted(shapes)}')
        self._samples[batch] = [item['data_samples'] for item in loaded]
        images = torch.stack([item['inputs'] for item in loaded])
        return images.float() / 255, self._samples[batch]

    def samples(self, batch: int) -> list[DetDataSample]:
        """Return the annotations of a batch."""
        if batch not in self._samples:
            self.load(batch)
        return self._samples[batch]


def require_late_boxes(dataset: dict) -> None:
    """Raise InputError unless annotations stay in pixels of the files."""
    kinds = [type_name(step) for step in dataset.get('pipeline', ())]
    boxes = [i for i, kind in enumerate(kinds)
             if kind.endswith('LoadAnnotations')]
    resizes = [i for i, kind in enumerate(kinds) if 'Resize' in kind]
    if not boxes:
        raise InputError('attacks need boxes: the test pipeline '
                         f'{kinds} has no LoadAnnotations')
    if resizes and boxes[0] < resizes[-1]:
        raise InputError('LoadAnnotations must come behind Resize in the '
                         'test pipeline: predictions are in pixels of the '
                         f'files, so boxes must be too; got {kinds}')
