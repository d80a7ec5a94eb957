"""Detectors under attack: mean average precision before and after.

The loss that an attack maximizes is the detector's own training loss on the
annotated boxes. The pictures are attacked as the test pipeline resizes them,
before normalization and padding.
"""

import collections
import copy
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.files import write_text

from .checks import check_detector
from .corruptions import Corruption
from .evaluation import BaseEvaluation
from .pictures import Pictures
from .pixels import LossLogits

WITHOUT_LOGITS = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM', 'LegacyRFGSM')
SMALLEST = 1.  # pixel; smaller boxes have no finite regression target
MAX_SEED = 2 ** 32


class PixelDetector(nn.Module):
    """Loss and predictions of MMDetection's detector, of pixels in [0, 1].

    Args:
        model: a detector of boxes that has a ``train_cfg``.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        if not isinstance(model, BaseDetector):
            raise InputError(f'{type(model).__name__} is no detector of '
                             'MMDetection')
        if getattr(model, 'with_mask', False):
            raise InputError('attacks are on detectors of boxes, '
                             f'{type(model).__name__} has a mask head')
        if getattr(model, 'train_cfg', None) is None:
            raise InputError('attacks maximize the training loss: the '
                             "config's model needs its train_cfg")
        self.model = model

    def loss_of(self, samples: list[DetDataSample],
                seed: int = 0) -> 'DetectorLoss':
        """Return a module from pixels to the loss on some annotations.

        Args:
            samples: of the same pictures.
            seed: of the random samplers of anchors and proposals, which
                take other ones in every call.
        """
        return DetectorLoss(self, [target(sample) for sample in samples],
                            seed)

    def predict(self, images: Tensor,
                samples: list[DetDataSample]) -> list[dict]:
        """Return what is found in pictures, in pixels of their files.

        Args:
            images: (N, 3, H, W), in [0, 1], channels as loaded.
            samples: of the same pictures.
        Returns:
            'bboxes', 'scores' and 'labels' of each, lists of numbers.
        """
        found = self.model(**self._prepare(images, samples), mode='predict')
        return [{key: sample.pred_instances[key].tolist()
                 for key in ('bboxes', 'scores', 'labels')}
                for sample in found]

    def features(self, images: Tensor) -> Tensor:
        """Return the finest features of the neck, (N, C, H, W)."""
        return self.model.extract_feat(self._prepare(images, None)['inputs'])[
            0]

    def _prepare(self, images, samples):
        # The preprocessor notes the padding in the samples.
        return self.model.data_preprocessor(dict(
            inputs=images * 255, data_samples=copy.deepcopy(samples)))


class DetectorLoss(nn.Module):
    """Pixels in [0, 1] to a detector's training loss; see PixelDetector."""

    def __init__(self, detector, targets, seed):
        super().__init__()
        self.detector, self.targets, self.seed = detector, targets, seed
        self.calls = 0

    def forward(self, images):
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(
                (self.seed * 1_000_003 + self.calls) % MAX_SEED)
            losses = self.detector.model(
                **self.detector._prepare(images, self.targets), mode='loss')
        self.calls += 1
        return self.detector.model.parse_losses(losses)[0]


def target(sample: DetDataSample) -> DetDataSample:
    """Return a sample whose boxes are in pixels of the resized picture."""
    sample = copy.deepcopy(sample)
    width, height = sample.scale_factor
    for name in ('gt_instances', 'ignored_instances'):
        instances = sample.get(name)
        if instances is None:
            continue
        boxes = instances.bboxes
        boxes = getattr(boxes, 'tensor', boxes)
        boxes = boxes * boxes.new_tensor([width, height] * 2)
        boxes = boxes.clamp_min(0).minimum(
            boxes.new_tensor(sample.img_shape[::-1] * 2))
        sizes = boxes[:, 2:] - boxes[:, :2]
        kept = (sizes >= SMALLEST).all(1)
        setattr(sample, name, InstanceData(
            bboxes=boxes[kept], labels=instances.labels[kept]))
    return sample


def require_voc_metric(evaluator: dict | list[dict]) -> None:
    """Raise InputError unless all metrics are mAPs of VOCMetric."""
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else \
        [evaluator]
    for metric in metrics:
        if not type_name(metric).endswith('VOCMetric') or \
                metric.get('metric', 'mAP') != 'mAP':
            raise InputError(
                'detectors are scored by VOCMetric(metric="mAP"), the '
                f'test_evaluator of the config is {dict(metric)}')


class DetectionEvaluation(BaseEvaluation):
    """Mean average precisions of one detector; see :class:`BaseEvaluation`.

    Finished columns are in the JSON file, predictions of all in
    FILE.predictions.jsonl beside it, one line per batch.

    Args:
        detector: what is attacked.
        pictures: their batches are those of one size.
        evaluator: VOCMetric of the config, a dict or a list of them.
        seed: of the attacks.
        include_logit_bn: scope of robust inference.
        source: what 'transfer' attacks.
        path: results are read from and written to it.
        facts: what else identifies the run, such as the checkpoint.
    """

    metric = 'mAP'

    def __init__(self, detector: PixelDetector, pictures: Pictures,
                 evaluator: dict | list[dict], seed: int = 0,
                 include_logit_bn: bool = True,
                 source: PixelDetector | None = None,
                 path: str | Path | None = None,
                 facts: Mapping | tuple = ()):
        require_voc_metric(evaluator)
        self.pictures, self.evaluator = pictures, evaluator
        settings = dict(
            facts, metric=self.metric, images=pictures.size,
            batch_size=pictures.batch_size, seed=seed,
            include_logit_bn=include_logit_bn, data=pictures.digest)
        super().__init__(detector, pictures.batches, settings, source, path)
        self.lines = self._read_lines()  # (mode, label) to a dict per batch

    @property
    def _predictions(self):
        return self.path.with_name(self.path.name + '.predictions.jsonl')

    def _read_lines(self):
        lines = collections.defaultdict(list)
        if not (self.path and self.path.exists()
                and self._predictions.exists()):
            return lines
        # A run killed while it wrote leaves half a line.
        text = self._predictions.read_text()
        text = text[:text.rfind('\n') + 1]
        write_text(self._predictions, text)
        for line in map(json.loads, text.splitlines()):
            lines[line['mode'], line['label']].append(line)
        return lines

    def run(self, modes, columns, progress=iter):
        for column in columns:
            if isinstance(column.attack, Corruption):
                raise InputError(
                    "a detector's pictures are corrupted as files: put "
                    "MMDetection's Corrupt into the test pipeline, and use "
                    'tools/test.py')
            if column.attack and column.attack.name not in WITHOUT_LOGITS:
                raise InputError(f'{column.attack.name} needs the logits of '
                                 'a classifier; a detector has a loss only')
            if column.share is not None:
                raise InputError(f'{column.label} scores single images; a '
                                 'detector is scored by a whole set')
        if self.path and not self.path.exists():
            self._predictions.unlink(missing_ok=True)  # of another run
            self.save()
        super().run(modes, columns, progress)

    def done(self, mode, column):
        if column.label in self.results['rows'].get(mode, {}):
            return len(self.batches)
        lines = self.lines[mode, column.label]
        if lines:
            self.require_column(column, lines[0]['column'])
        return len(lines)

    def size(self, batch):
        return len(self.batches[batch])

    def load(self, batch):
        images, samples = self.pictures.load(batch)
        return images.to(next(self.network.parameters()).device), samples

    def attack(self, model, attack, images, targets, steps, seed, path):
        labels = torch.zeros(
            len(images), dtype=torch.long, device=images.device)
        return attack.prefixes(
            LossLogits(model.loss_of(targets, seed)), images, labels, steps,
            seed)

    def answer(self, images, targets):
        return self.network.predict(images, targets)

    def note(self, job, answer, change, seen):
        line = dict(mode=job.mode, label=job.column.label, batch=job.batch,
                    max_perturbation=change, found=answer,
                    column=dataclasses.asdict(job.column))
        lines = self.lines[job.mode, job.column.label]
        lines.append(line)
        if self.path:
            with self._predictions.open('a') as file:
                file.write(json.dumps(line) + '\n')
        if len(lines) == self.batches_of(job.column):
            row = self.results['rows'].setdefault(job.mode, {})
            row[job.column.label] = self._summary(lines)
            self.save()

    def check(self, images, targets):
        return check_detector(self.network, images, targets)

    def warn(self, targets):
        """Pictures have no class to be sorted by."""

    def _summary(self, lines):
        metrics = self._score(lines)
        return dict(
            column=lines[0]['column'],
            images=sum(len(line['found']) for line in lines),
            max_perturbation=max(line['max_perturbation'] for line in lines),
            mAP=next(value for key, value in metrics.items()
                     if key.endswith('mAP')),
            metrics=metrics)

    def _score(self, lines):
        logger = MMLogger.get_current_instance()
        level = logger.level
        with DefaultScope.overwrite_default_scope('mmdet'):
            evaluator = Evaluator(copy.deepcopy(self.evaluator))
        evaluator.dataset_meta = self.pictures.dataset.metainfo
        for line in lines:
            samples = copy.deepcopy(self.pictures.samples(line['batch']))
            for sample, found in zip(samples, line['found']):
                sample.pred_instances = to_instances(found)
                for name in ('gt_instances', 'ignored_instances'):
                    boxes = sample.get(name).bboxes
                    sample.get(name).bboxes = getattr(boxes, 'tensor', boxes)
            evaluator.process(samples)
        logger.setLevel(logging.WARNING)  # else a table for every column
        try:
            return evaluator.evaluate(
                sum(len(line['found']) for line in lines))
        finally:
            logger.setLevel(level)


def to_instances(found: dict) -> InstanceData:
    """Lists of :meth:`PixelDetector.predict` as MMDetection's instances."""
    return InstanceData(
        bboxes=torch.tensor(found['bboxes']).reshape(-1, 4),
        scores=torch.tensor(found['scores']),
        labels=torch.tensor(found['labels'], dtype=torch.long))
