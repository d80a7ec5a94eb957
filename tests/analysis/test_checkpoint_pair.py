"""Two checkpoints and what lies between them, or keeps them apart."""
import pytest
import torch

from mmadder.analysis.checkpoint_pair import interpolate, load_pair
from mmadder.errors import InputError
from mmadder.models import build_model


def test_buffers_are_interpolated_and_counters_are_not(pair):
    first, second = (torch.load(name)['state_dict'] for name in pair)
    mixed = interpolate(first, second, .25)
    key = 'backbone.bn.running_var'
    torch.testing.assert_close(
        mixed[key], .75 * first[key] + .25 * second[key])
    assert mixed['backbone.bn.num_batches_tracked'] == 10
    for t, end in ((0., first), (1., second)):
        for key, value in interpolate(first, second, t).items():
            if value.is_floating_point():
                assert torch.equal(value, end[key])


def test_checkpoints_of_different_architectures(cfg, pair, tmp_path):
    model = build_model(cfg)
    saved = torch.load(pair[1])
    other = str(tmp_path / 'other.pth')

    def save(state_dict):
        torch.save(dict(state_dict=state_dict), other)

    save({**saved['state_dict'], 'backbone.conv.awn.nu': torch.ones(6)})
    with pytest.raises(InputError, match=r'different architectures(.|\n)*'
                       r'1 keys only in the second: backbone.conv.awn.nu'):
        load_pair(model, (pair[0], other))
    save({**saved['state_dict'], 'head.fc.weight': torch.ones(10, 7)})
    with pytest.raises(InputError, match=r'1 of different shapes: head.fc.'
                       r'weight \(\(10, 6\) and \(10, 7\)\)'):
        load_pair(model, (pair[0], other))
    with pytest.raises(InputError, match='1 keys of another shape: head.fc'):
        load_pair(model, (other, other))
    with pytest.raises(InputError, match='none.pth does not exist'):
        load_pair(model, (pair[0], str(tmp_path / 'none.pth')))


@pytest.mark.parametrize('order', [1, -1])
def test_between_an_adder_network_and_one_on_the_way(cfg, pair, order):
    """A file that does not say how far it is, is of adders."""
    saved = torch.load(pair[1])['state_dict']
    key = 'backbone.conv.fraction'
    torch.save(dict(state_dict={
        **saved, key: torch.tensor(.5, dtype=torch.float64)}), pair[1])
    model = build_model(cfg)
    mixed = interpolate(*load_pair(model, pair[::order]), .5)
    model.load_state_dict(mixed)
    assert model.backbone.conv.adder_fraction == mixed[key] == .75
