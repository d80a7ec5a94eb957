"""Annotations and predictions of a few boxes, for tests of detections."""
import numpy as np

from mmadder.analysis import Detections

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
