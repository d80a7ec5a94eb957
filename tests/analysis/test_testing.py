"""Test sets, batches, and batch norms measured anew."""
import copy

import pytest
import torch

from mmadder.analysis.testing import (
    TestSet,
    reestimate_on_batches,
    subset,
    test_batch,
    training_batches,
)
from mmadder.errors import InputError
from mmadder.models import build_model


def test_reestimated_statistics(cfg, pair):
    model = build_model(cfg)
    before = copy.deepcopy(model.state_dict())
    batches = training_batches(cfg, 2)
    reestimate_on_batches(model, batches)
    means, variances = [], []
    for batch in batches:
        data = model.data_preprocessor(batch, True)
        output = model.backbone.conv(data['inputs']).transpose(0, 1).flatten(1)
        means.append(output.mean(1))
        variances.append(output.var(1))  # unbiased, as PyTorch tracks
    norm = model.backbone.bn
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var,
                               torch.stack(variances).mean(0))
    assert norm.momentum == .1 and not norm.training
    for key, value in model.state_dict().items():
        if 'bn.' not in key:
            assert torch.equal(value, before[key])


def test_images_are_a_random_choice(cfg):
    dataset = TestSet(cfg).loader.dataset
    chosen = TestSet(cfg, images=10, seed=1)
    assert len(chosen) == 10
    labels = chosen.loader.dataset.get_gt_labels().tolist()
    assert len(set(labels)) > 5  # the set is sorted by class
    assert labels == TestSet(
        cfg, images=10, seed=1).loader.dataset.get_gt_labels().tolist()
    assert len(test_batch(cfg, 5)['inputs']) == 5
    with pytest.raises(InputError, match='99 images were asked for, .* 20'):
        subset(dataset, 99)
    cfg.test_evaluator = dict(type='CocoMetric', ann_file='a.json')
    with pytest.raises(InputError, match='leave --images out'):
        TestSet(cfg, images=10)
