"""Estimating batch norms anew changes their statistics and nothing else."""
import copy

import pytest
import torch
from torch import nn

from mmadder.errors import InputError
from mmadder.statistics import find_norms, reestimate_statistics


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm1d(3), nn.Dropout(.9), nn.BatchNorm1d(3, momentum=.3),
        nn.BatchNorm1d(3, track_running_stats=False))
    model.train()
    model[0].eval()
    return model


def batches():
    return [torch.randn(8, 3) * scale + scale for scale in (1, 2, 4)]


def state(model):
    return [(module.training, getattr(module, 'momentum', None))
            for module in model.modules()]


def test_find_norms(model):
    assert find_norms(model) == [model[0], model[2]]


def test_mean_over_batches(model):
    before, data = state(model), batches()
    reestimate_statistics(model, data, model)
    torch.testing.assert_close(
        model[0].running_mean, torch.stack([x.mean(0) for x in data]).mean(0))
    torch.testing.assert_close(
        model[0].running_var, torch.stack([x.var(0) for x in data]).mean(0))
    # No dropout in between: the second norm sees normalized values.
    torch.testing.assert_close(
        model[2].running_mean, torch.zeros(3), rtol=0, atol=1e-6)
    assert state(model) == before


def test_an_error_changes_nothing(model):
    before, modes = copy.deepcopy(model.state_dict()), state(model)

    def fail_at_third(batch):
        if batch is data[2]:
            raise KeyboardInterrupt
        model(batch)

    data = batches()
    with pytest.raises(KeyboardInterrupt):
        reestimate_statistics(model, data, fail_at_third)
    assert state(model) == modes
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_norms_that_are_left_out_or_not_reached_stay_as_they_are(model):
    """A norm without a batch had mean 0 and variance 1."""
    reestimate_statistics(model, batches(), model)
    before = copy.deepcopy(model.state_dict())
    reestimate_statistics(model, batches(), model[2], norms=[model[2]])
    reestimate_statistics(model, batches(), model[2])
    for key in before:
        if key.startswith('0.'):
            assert torch.equal(model.state_dict()[key], before[key]), key
    assert not torch.equal(model[2].running_mean, before['2.running_mean'])


def test_nothing_to_estimate(model):
    with pytest.raises(InputError, match='there is no batch'):
        reestimate_statistics(model, [], model)
    with pytest.raises(InputError, match='Linear has no batch norm'):
        reestimate_statistics(nn.Linear(1, 1), [1], model)
