"""Metrics and report against mmdet's VOCMetric and hand-worked cases."""
import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import VOCMetric
from mmengine.config import Config

from mmadder.analysis import (
    Detections,
    average_precision,
    confusion_matrix,
    load_detections,
    write_report,
)
from mmadder.errors import InputError
from mmadder.reporting.figures import read_scalars

BOXES = np.array([[10, 10, 30, 30], [40, 40, 60, 60.]], np.float32)
FAR = np.array([[0, 0, 5, 5.]], np.float32)


def annotate(labels, boxes=BOXES, ignored=False):
    count = len(labels)
    return dict(bboxes=boxes[:count], labels=np.array(labels, np.int64),
                ignored=np.full(count, ignored))


def predict(labels, scores, boxes=BOXES):
    return dict(bboxes=boxes[:len(labels)],
                scores=np.array(scores, np.float32),
                labels=np.array(labels, np.int64))


def detections(predictions, annotations, classes=('a', 'b')):
    return Detections(classes, [''] * len(predictions), predictions,
                      annotations)


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


# ---------------------------------------------------------------- report --


@pytest.fixture
def run(tmp_path):
    """A work directory with curves, and pictures with detections."""
    folder = tmp_path / 'run' / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    records = [dict(loss=2., step=20, epoch=1), dict(loss=1., step=40),
               {'pascal_voc/mAP': .25, 'step': 1}]
    folder.joinpath('scalars.json').write_text(
        '\n'.join(map(json.dumps, records)))
    path = str(tmp_path / 'picture.jpg')
    cv2.imwrite(path, np.full((64, 64, 3), 90, np.uint8))
    found = detections([predict([0, 1], [.9, .8])], [annotate([0, 0])])
    found.paths = [path]
    return found, tmp_path / 'run'


def test_report_is_one_page_with_its_figures(run, tmp_path):
    found, folder = run
    page, figures = write_report(
        tmp_path / 'report', 'A <title>', found,
        {'run': read_scalars(folder)}, facts=[('seed', 0)],
        commands=['python tools/train.py a && b'])
    text = page.read_text()
    # One of two objects: recall .5 at precision 1, six of eleven points.
    assert figures['mAP'] == pytest.approx(6 / 11)
    assert '0.545' in text and 'A &lt;title&gt;' in text
    assert 'a &amp;&amp; b' in text
    assert not re.search(r'https?://', text)
    for name in re.findall(r'src="([^"]+)"', text):
        picture = cv2.imread(str(page.parent / name))
        assert picture.std() > 5, f'{name} is blank'
    assert len(re.findall('src=', text)) == 4


def test_resumed_run_has_one_curve(run):
    _, folder = run
    later = folder / '20260102_000000' / 'vis_data'
    later.mkdir(parents=True)
    later.joinpath('scalars.json').write_text(
        json.dumps(dict(loss=.5, step=40)))
    train, val = read_scalars(folder)
    assert [record['loss'] for record in train] == [2., .5]
    assert [record['pascal_voc/mAP'] for record in val] == [.25]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match='no vis_data/scalars.json in'):
        read_scalars(tmp_path)
    with pytest.raises(InputError, match='tools/test.py --out'):
        load_detections(Config(), tmp_path / 'results.pkl')
