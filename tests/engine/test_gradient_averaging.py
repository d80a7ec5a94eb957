"""Local gradient scaling on two ranks against one process with all data."""
import pytest
import torch
import torch.distributed as dist
from ranks import (
    ETA,
    Net,
    batch,
    on_two_ranks,
    samples,
    train,
    train_with_runner,
    weights,
)

from mmadder.layers import get_averaging_group, set_averaging_group

NORMS = [None, 'WS', 'AWN']
ADDERS = ('conv1.weight', 'conv2.weight')


def rms(tensor):
    return tensor.double().square().mean().sqrt()


def difference(actual, expected):
    """Return the largest norm of a difference, relative to the tensor's."""
    return max((actual[name] - expected[name]).norm().item()
               / expected[name].norm().item()
               for name, tensor in expected.items() if tensor.norm() > 0)


def raw_gradients(data):
    """Return the gradients of the adders without local scaling."""
    torch.manual_seed(0)
    net = Net(None, eta=None)
    net(**batch(data))['loss'].backward()
    return {name: net.get_parameter(name).grad for name in ADDERS}


@pytest.mark.parametrize('weight_norm', NORMS)
def test_two_ranks_equal_one_process(tmp_path, weight_norm):
    ranks = on_two_ranks(train, tmp_path / 'ranks', weight_norm,
                         average_gradients=True)
    expected = train(weight_norm)
    for result in ranks:
        assert difference(result['gradients'], expected['gradients']) < 1e-5
        assert difference(result['weights'], expected['weights']) < 1e-5


@pytest.mark.parametrize('weight_norm', NORMS)
@pytest.mark.parametrize('average_gradients', [True, False])
def test_micro_batches_and_grad_scaler(
        tmp_path, weight_norm, average_gradients):
    """Two accumulations without synchronisation, scaled 1024-fold.

    With averaging they equal two in one process. Without, two ranks with two
    micro-batches equal one process with four.
    """
    ranks = on_two_ranks(
        train, tmp_path / 'ranks', weight_norm, average_gradients,
        micro_batches=2, grad_scale=1024., data=samples(12))
    expected = train(weight_norm, micro_batches=2 if average_gradients else 4,
                     data=samples(12))
    for result in ranks:
        assert difference(result['gradients'], expected['gradients']) < 1e-5
        assert difference(result['weights'], expected['weights']) < 1e-5
        assert result['scale'] == 1024


def test_gradient_is_the_mean_of_scaled_or_the_scaled_mean(tmp_path):
    """The default is the reference's; the mean of scaled ones is smaller."""
    parts = [raw_gradients(samples(8)[rank::2]) for rank in range(2)]
    default = on_two_ranks(train, tmp_path / 'default', None)[0]['gradients']
    averaged = on_two_ranks(train, tmp_path / 'averaged', None,
                            average_gradients=True)[0]['gradients']
    for name in ADDERS:
        a, b = (part[name] for part in parts)
        torch.testing.assert_close(
            default[name], ((a / rms(a) + b / rms(b)) * ETA / 2).float())
        mean = (a + b) / 2
        torch.testing.assert_close(
            averaged[name], (mean * ETA / rms(mean)).float())
        assert rms(averaged[name]).item() == pytest.approx(ETA)
        assert rms(default[name]) < .5 * ETA


def test_ranks_agree_but_differ_from_one_process_by_default(tmp_path):
    ranks = on_two_ranks(train, tmp_path / 'ranks', 'AWN')
    expected = train('AWN')
    assert difference(*(result['weights'] for result in ranks)) == 0
    assert difference(ranks[0]['weights'], expected['weights']) > 1e-3


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_overflow_on_one_rank_skips_the_step_of_both(tmp_path, value):
    data = samples(8)
    data[1]['factor'] = torch.tensor(value)
    ranks = on_two_ranks(train, tmp_path / 'ranks', 'AWN',
                         average_gradients=True, grad_scale=8., data=data,
                         steps=1)
    torch.manual_seed(0)
    start = weights(Net('AWN'))
    for result in ranks:
        assert not any(gradient.isfinite().any()
                       for name, gradient in result['gradients'].items()
                       if name in ADDERS)
        assert difference(result['weights'], start) == 0
        assert result['scale'] == 4


@pytest.mark.parametrize('shards', [False, True])
def test_runner_with_the_option_equals_one_process(tmp_path, shards):
    """With DistributedDataParallel, and with FSDP's sharded parameters."""
    ranks = on_two_ranks(
        train_with_runner, tmp_path / 'ranks', tmp_path / 'work', 'AWN',
        batch_size=1, shards=shards, average_gradients=True)
    # One process has nothing to average, and needs no process group.
    expected = train_with_runner(tmp_path / 'work', 'AWN', batch_size=2,
                                 average_gradients=True)
    assert difference(*ranks) == 0
    assert difference(ranks[0], expected) < 1e-5
    assert get_averaging_group() is None


def test_runner_scales_per_rank_by_default(tmp_path):
    replicas, shards = (on_two_ranks(
        train_with_runner, tmp_path / f'ranks{shards}', tmp_path / 'work',
        'AWN', batch_size=1, shards=shards) for shards in (False, True))
    expected = train_with_runner(tmp_path / 'work', 'AWN', batch_size=2)
    assert difference(*replicas) == difference(*shards) == 0
    assert difference(replicas[0], shards[0]) < 1e-6
    assert difference(replicas[0], expected) > 1e-3


@pytest.mark.parametrize('group', [dist.GroupMember.NON_GROUP_MEMBER, 'gloo'])
def test_group_must_be_a_process_group(group):
    with pytest.raises(TypeError, match='must be a ProcessGroup with this'):
        set_averaging_group(group)
    assert get_averaging_group() is None
