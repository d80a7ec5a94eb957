"""The one re-estimation of batch norms."""
import pytest
import torch
from torch import nn

from mmadder.errors import InputError
from mmadder.statistics import find_norms, reestimate_statistics


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
                          nn.Dropout(.9), nn.Conv2d(4, 2, 1),
                          nn.BatchNorm2d(2, momentum=.3))
    model[0].eval()  # modes are mixed
    return model


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 3, 6, 7, generator=generator) + i
            for i in range(count)]


def test_mean_over_the_batches(model):
    reestimate_statistics(model, batches(), model)
    first = [model[0](batch) for batch in batches()]
    torch.testing.assert_close(
        model[1].running_mean,
        torch.stack([x.mean((0, 2, 3)) for x in first]).mean(0))
    torch.testing.assert_close(
        model[1].running_var,
        torch.stack([x.var((0, 2, 3)) for x in first]).mean(0))
    # Dropout was off: the second norm sees what it sees in evaluation.
    second = []
    for x in first:
        x = nn.functional.batch_norm(
            x, None, None, model[1].weight, model[1].bias, training=True)
        second.append(model[3](x).mean((0, 2, 3)))
    torch.testing.assert_close(
        model[4].running_mean, torch.stack(second).mean(0))


def test_modes_momenta_and_weights_stay(model):
    modes = [module.training for module in model.modules()]
    weights = [p.clone() for p in model.parameters()]
    reestimate_statistics(model, batches(), model)
    assert [module.training for module in model.modules()] == modes
    assert [norm.momentum for norm in find_norms(model)] == [.1, .3]
    assert all(map(torch.equal, weights, model.parameters()))


def test_an_error_leaves_all_as_it_was(model):
    reestimate_statistics(model, batches(1), model)
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def fail_at_second(batch):
        model(batch)
        if batch.mean() > .5:
            raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        reestimate_statistics(model, batches(), fail_at_second)
    with pytest.raises(InputError, match='no batch'):
        reestimate_statistics(model, [], model)
    assert [module.training for module in model.modules()] == modes
    assert [norm.momentum for norm in find_norms(model)] == [.1, .3]
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_model_without_norms():
    with pytest.raises(InputError, match='Linear has no batch norm'):
        reestimate_statistics(nn.Linear(2, 2), [1], print)
