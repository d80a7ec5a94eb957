import pytest
import torch
from mmengine.runner import LogProcessor
from torch.nn.functional import cross_entropy

from mmadder.evaluation import CrossEntropyMetric


def test_is_the_cross_entropy_of_the_logits():
    logits, labels = torch.randn(7, 5), torch.arange(7) % 5
    metric = CrossEntropyMetric()
    metric.process({}, [
        dict(pred_score=scores, gt_label=label[None])
        for scores, label in zip(logits.softmax(1), labels)])
    assert metric.evaluate(7) == {'test/cross_entropy': pytest.approx(
        cross_entropy(logits, labels).item(), rel=1e-5)}


def test_a_score_of_zero_is_no_infinite_loss():
    metric = CrossEntropyMetric()
    metric.process({}, [dict(pred_score=torch.tensor([1., 0.]),
                             gt_label=torch.tensor([1]))])
    value, = metric.evaluate(1).values()
    assert value == pytest.approx(87.3, abs=0.1)


def test_each_epoch_is_logged_as_it_is():
    """MMEngine averages what it takes for a loss over ten epochs."""
    metric = CrossEntropyMetric()
    metric.process({}, [dict(pred_score=torch.ones(1),
                             gt_label=torch.tensor([0]))])
    key, = metric.evaluate(1)
    assert not LogProcessor().mean_pattern.search(f'val/{key}')
