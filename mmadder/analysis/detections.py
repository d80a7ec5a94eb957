"""What a detector found, compared with the annotations."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
from mmdet.evaluation.functional import bbox_overlaps, eval_map
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope

from mmadder.errors import InputError

# Keys of MMDetection's data information, and of an annotation in it.
PICTURE = {'img_id', 'img_path', 'instances'}
BOX = {'bbox', 'bbox_label', 'ignore_flag'}


@dataclass
class Detections:
    """Predictions and annotations of one test set, picture by picture.

    Attributes:
        classes: names.
        paths: picture files.
        predictions: dicts of ``bboxes`` (N, 4) as x1, y1, x2, y2 in pixels
            of the file, ``scores`` (N,) and ``labels`` (N,).
        annotations: dicts of ``bboxes`` (M, 4), ``labels`` (M,) and
            ``ignored`` (M,), true for difficult objects.
    """
    classes: tuple[str, ...]
    paths: list[str]
    predictions: list[dict[str, np.ndarray]]
    annotations: list[dict[str, np.ndarray]]


def load_detections(config: Config, results: str | Path) -> Detections:
    """Join a results file with the annotations of the config's test set.

    Args:
        config: with ``test_dataloader`` of VOC-style data.
        results: pickle written by ``tools/test.py --out``.
    Returns:
        in the order of the results.
    Raises:
        InputError: the file is missing, or is of other pictures.
    """
    if not Path(results).is_file():
        raise InputError(f'results {results} do not exist; write them with '
                         'tools/test.py --out FILE.pkl')
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(dict(config.test_dataloader.dataset))
    return join_annotations(dataset, mmengine.load(results), results)


def join_annotations(dataset: BaseDataset,
                     samples: Sequence[Mapping[str, Any]],
                     name: str | Path) -> Detections:
    """Join predictions with the annotations of their pictures.

    Args:
        dataset: VOC, COCO, or another with boxes.
        samples: ``img_id`` and ``pred_instances`` of each picture, in any
            order.
        name: of the samples, for the error.
    Returns:
        in the order of the samples.
    Raises:
        InputError: the samples are of other pictures, or the dataset has no
            boxes.
    """
    infos = {}
    for i in range(len(dataset)):
        info = getattr(dataset, 'get_data_info', lambda i: {})(i)
        if not _has_boxes(info):
            raise InputError(
                f'{type(dataset).__name__} has no annotated boxes')
        infos[info['img_id']] = info
    # A list, where parts of a data set have other classes.
    if not (isinstance(dataset.metainfo, dict)
            and dataset.metainfo.get('classes')):
        raise InputError(f'{type(dataset).__name__} names no classes')
    unknown = [sample['img_id'] for sample in samples
               if sample['img_id'] not in infos]
    if unknown or len(samples) != len(infos):
        raise InputError(
            f'{name} has {len(samples)} pictures, the data set of the '
            f'config {len(infos)}, and {len(unknown)} of the former are not '
            'in it; test again with this config and data root')
    ordered = [infos[sample['img_id']] for sample in samples]
    return Detections(
        classes=tuple(dataset.metainfo['classes']),
        paths=[info['img_path'] for info in ordered],
        predictions=[_prediction(sample['pred_instances'])
                     for sample in samples],
        annotations=[_annotation(info['instances']) for info in ordered])


def _has_boxes(info):
    return PICTURE <= info.keys() and all(
        BOX <= instance.keys() for instance in info['instances'])


def _prediction(instances):
    return {key: np.asarray(instances[key])
            for key in ('bboxes', 'scores', 'labels')}


def _annotation(instances):
    return dict(
        bboxes=np.array([instance['bbox'] for instance in instances],
                        dtype=np.float32).reshape(-1, 4),
        labels=np.array([instance['bbox_label'] for instance in instances],
                        dtype=np.int64),
        ignored=np.array([instance['ignore_flag'] for instance in instances],
                         dtype=bool))


def average_precision(
        detections: Detections, iou_thr: float = 0.5,
        eval_mode: str = '11points') -> tuple[float, list[dict[str, Any]]]:
    """PASCAL VOC average precision, as mmdet's VOCMetric computes it.

    Args:
        detections: of the test set.
        iou_thr: overlap from which a box is found.
        eval_mode: '11points' (VOC07) or 'area'.
    Returns:
        mAP over the classes that have objects, and for each class a
        dict of ``name``, ``ap``, ``objects``, ``detections``, ``recall`` and
        ``precision``, the last two (detections,) by falling score.
    """
    scored = [
        [np.hstack([p['bboxes'], p['scores'][:, None]])[p['labels'] == label]
         for label in range(len(detections.classes))]
        for p in detections.predictions]
    annotations = [
        dict(bboxes=a['bboxes'][~a['ignored']],
             labels=a['labels'][~a['ignored']],
             bboxes_ignore=a['bboxes'][a['ignored']],
             labels_ignore=a['labels'][a['ignored']])
        for a in detections.annotations]
    mean, rows = eval_map(
        scored, annotations, iou_thr=iou_thr, dataset=detections.classes,
        logger='silent', eval_mode=eval_mode, use_legacy_coordinate=True)
    return float(mean), [
        dict(name=name, ap=float(row['ap']), objects=int(row['num_gts']),
             detections=int(row['num_dets']),
             recall=np.ravel(row['recall']),
             precision=np.ravel(row['precision']))
        for name, row in zip(detections.classes, rows)]


def confusion_matrix(detections: Detections, score_thr: float = 0.5,
                     iou_thr: float = 0.5) -> np.ndarray:
    """Count which class was taken for which.

    Boxes that score at least ``score_thr`` are matched with objects by
    falling score, each with the free object that it overlaps most, whatever
    the classes. The rest are missed objects (last column) and false boxes
    (last row). Ignored objects absorb a box without counting.

    Args:
        detections: of the test set.
        score_thr: in [0, 1].
        iou_thr: least overlap of a match.
    Returns:
        (classes + 1, classes + 1) integers, rows true classes.
    """
    size = len(detections.classes) + 1
    matrix = np.zeros((size, size), dtype=np.int64)
    for found, true in zip(detections.predictions, detections.annotations):
        order = np.argsort(-found['scores'], kind='stable')
        order = order[found['scores'][order] >= score_thr]
        overlaps = bbox_overlaps(found['bboxes'], true['bboxes'],
                                 use_legacy_coordinate=True)
        free = np.ones(len(true['labels']), dtype=bool)
        for i in order:
            candidates = np.where(free, overlaps[i], -1)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best < 0 or candidates[best] < iou_thr:
                matrix[-1, found['labels'][i]] += 1
                continue
            free[best] = False
            if not true['ignored'][best]:
                matrix[true['labels'][best], found['labels'][i]] += 1
        for label in true['labels'][free & ~true['ignored']]:
            matrix[label, -1] += 1
    return matrix
