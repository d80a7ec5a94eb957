"""Metrics of detections against mmdet's VOCMetric and by hand."""
import numpy as np
import pytest
import torch
from boxes import BOXES, FAR, annotate, detections, predict
from mmdet.evaluation import VOCMetric
from mmengine.config import Config

from mmadder.analysis import (
    average_precision,
    confusion_matrix,
    load_detections,
)
from mmadder.errors import InputError


def voc_metric(found):
    """mAP of mmdet's own metric on the same boxes."""
    metric = VOCMetric(iou_thrs=0.5, eval_mode='11points')
    metric.dataset_meta = dict(classes=found.classes)
    for prediction, annotation in zip(found.predictions, found.annotations):
        ignored = annotation['ignored']
        metric.process({}, [dict(
            pred_instances={key: torch.from_numpy(value)
                            for key, value in prediction.items()},
            gt_instances=dict(
                bboxes=torch.from_numpy(annotation['bboxes'][~ignored]),
                labels=torch.from_numpy(annotation['labels'][~ignored])),
            ignored_instances=dict(
                bboxes=torch.from_numpy(annotation['bboxes'][ignored]),
                labels=torch.from_numpy(annotation['labels'][ignored])))])
    return metric.evaluate(len(found.predictions))['pascal_voc/mAP']


def test_perfect_detections_have_map_1_and_none_0():
    true = [annotate([0, 1]), annotate([1])]
    perfect = detections([predict([0, 1], [.9, .8]), predict([1], [.7])],
                         true)
    empty = detections([predict([], [])] * 2, true)
    assert average_precision(perfect)[0] == pytest.approx(1)
    assert voc_metric(perfect) == pytest.approx(1)
    assert average_precision(empty)[0] == 0 == voc_metric(empty)


def test_average_precision_by_hand():
    """True, false, true by falling score: precision 1, 1/2, 2/3."""
    found = detections(
        [predict([0, 0, 0], [.9, .8, .7], np.vstack([BOXES[:1], FAR,
                                                     BOXES[1:]]))],
        [annotate([0, 0])], classes=('a', ))
    mean, rows = average_precision(found)
    np.testing.assert_allclose(rows[0]['recall'], [.5, .5, 1])
    np.testing.assert_allclose(rows[0]['precision'], [1, .5, 2 / 3])
    # Recall 0 to .5 (six points) at 1, .6 to 1 (five points) at 2/3.
    assert mean == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert voc_metric(found) == pytest.approx(mean)
    area, _ = average_precision(found, eval_mode='area')
    assert area == pytest.approx(.5 + .5 * 2 / 3)
    assert rows[0]['objects'] == 2 and rows[0]['detections'] == 3


def test_random_detections_agree_with_vocmetric():
    rng = np.random.default_rng(0)
    predictions, annotations = [], []
    for _ in range(20):
        corner = rng.uniform(0, 50, (6, 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 30, (6, 2))])
        annotations.append(dict(
            bboxes=boxes.astype(np.float32), labels=rng.integers(0, 3, 6),
            ignored=rng.random(6) < .2))
        predictions.append(dict(
            bboxes=(boxes + rng.normal(0, 3, boxes.shape)).astype('f4'),
            scores=rng.random(6).astype('f4'), labels=rng.integers(0, 3, 6)))
    found = detections(predictions, annotations, ('a', 'b', 'c'))
    mean, _ = average_precision(found)
    assert 0 < mean < 1
    assert voc_metric(found) == pytest.approx(mean, abs=1e-6)


def test_confusion_matrix_by_hand():
    found = detections(
        [predict([1, 0, 0], [.9, .8, .2], np.vstack([BOXES[:1], FAR, BOXES])),
         predict([0], [.9])],
        [annotate([0, 1]), annotate([1], ignored=True)])
    # 'a' taken for 'b'; a false 'a'; 'b' missed (its box scores .2);
    # the ignored object absorbs the last box.
    assert confusion_matrix(found).tolist() == [
        [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_missing_results_are_named(tmp_path):
    with pytest.raises(InputError, match='tools/test.py --out'):
        load_detections(Config(), tmp_path / 'results.pkl')
