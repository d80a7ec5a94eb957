"""Deviations are found, and decide."""
import pytest
import torch
from mmengine.structures import InstanceData

from mmadder.errors import InputError
from mmadder.export.onnx_parity import (
    Comparison,
    Parity,
    _compare_boxes,
    _compare_tensors,
)


def boxes(*rows):
    """Rows of (x, y, score, label): boxes of 10 pixels."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    corners = table[:, :2]
    return InstanceData(bboxes=torch.cat([corners, corners + 10], 1),
                        scores=table[:, 2], labels=table[:, 3].long())


def parity(*comparisons):
    return Parity(1, list(comparisons), 0, {}, 1)


def test_tensors():
    a, b = torch.tensor([1., -4.]), torch.tensor([[2.]])
    first, second = _compare_tensors(
        [(dict(a=a, b=b), dict(a=a + torch.tensor([0., .5]), b=b)),
         (dict(a=2 * a, b=b), dict(a=2 * a, b=b))], .01, dict(a=1e-3, b=.1))
    assert first == Comparison('a', 4, 8., .5, .08)
    assert second == Comparison('b', 2, 2., 0., 1.)  # rounded that far
    assert not first.holds and second.holds


def test_boxes_that_are_the_same():
    own = boxes((1, 2, .9, 0), (30, 40, .8, 1), (31, 40, .7, 1))
    # The last two changed places; a score and a corner moved a little.
    other = boxes((1.1, 2, .9, 0), (31, 40, .7, 1), (30, 40, .799, 1))
    found = _compare_boxes([([own], [other])], 0)
    alone, corners, scores = found
    assert (alone.values, alone.deviation) == (3, 0)
    assert corners.deviation == pytest.approx(.1, abs=1e-5)
    assert scores.deviation == pytest.approx(.001, abs=1e-5)
    assert corners.largest == 50 and all(entry.holds for entry in found)


@pytest.mark.parametrize('other, broken', [
    (boxes((1, 2, .9, 0)), 'boxes without partner'),
    (boxes((1, 2, .9, 0), (30, 40, .8, 0)), 'boxes without partner'),
    (boxes((1, 2, .9, 0), (33, 40, .8, 1)), 'boxes without partner'),
    (boxes((1, 2, .9, 0), (31, 40, .8, 1)), 'their corners, pixels'),
    (boxes((1, 2, .9, 0), (30, 40, .7, 1)), 'their scores'),
    (boxes((1, 2, .9, 0), (30, 40, .8, 1), (30, 40, .8, 1)),
     'boxes without partner'),
    (boxes(), 'boxes without partner')])
def test_boxes_that_differ(other, broken):
    own = boxes((1, 2, .9, 0), (30, 40, .8, 1))
    found = _compare_boxes([([own], [other])], 0)
    assert [entry.output for entry in found if not entry.holds] == [broken]


def test_no_boxes_at_all():
    assert all(entry.holds for entry in _compare_boxes(
        [([boxes()], [boxes()])], 0))


def test_refusal():
    parity(Comparison('a', 1, 1., .1, .1)).require()
    for deviation in .2, float('nan'):
        with pytest.raises(InputError, match='something else than PyTorch: b'):
            parity(Comparison('a', 1, 1., 0., .1),
                   Comparison('b', 1, 1., deviation, .1)).require()
