import pytest
import torch
from torch import nn

from mmadder.checkpoints.state_dict import (
    compare_state_dict,
    get_state_dict,
    load_pretrained,
    read_checkpoint,
    split_pretrained,
)
from mmadder.errors import InputError
from mmadder.models import AdderResNet


class Toy(nn.Module):

    def __init__(self, layers=1):
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Linear(3, 3) for _ in range(layers)))


def test_compare_state_dict():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state_dict = {'0.weight': torch.ones(4, 2), '0.bias': torch.ones(3),
                  '1.weight': torch.ones(3), '1.bias': torch.ones(3),
                  '1.running_mean': torch.ones(3), '2.weight': torch.ones(1),
                  'data_preprocessor.mean': torch.ones(3),
                  'ema_0_weight': torch.ones(3, 2), 'fc.bias': torch.ones(1)}
    difference = compare_state_dict(model, state_dict, ignore=('fc.', ))
    assert difference
    assert difference.missing == ['1.running_var']
    assert difference.unexpected == ['2.weight']
    assert difference.misshapen == [
        '0.weight ((4, 2) in the file, (3, 2) in the model)']
    assert not compare_state_dict(model, model.state_dict())


def test_long_lists_are_cut():
    difference = compare_state_dict(
        nn.Sequential(*(nn.Linear(1, 1, bias=False) for _ in range(25))), {})
    assert str(difference) == (
        '25 keys missing from the file: ' +
        ', '.join(f'{i}.weight' for i in range(20)) + ' and 5 more')


@pytest.mark.parametrize('checkpoint, message', [
    (dict(epoch=3, net=dict(x=torch.ones(1))), 'a dict with epoch, net'),
    (dict(state_dict={}), 'a dict with state_dict'),
    ([torch.ones(1)], 'it is a list')])
def test_no_state_dict(checkpoint, message):
    with pytest.raises(InputError, match=f'FILE holds no .*{message}'):
        get_state_dict(checkpoint, 'FILE')


def test_failed_load_changes_nothing(tmp_path):
    path = str(tmp_path / 'saved.pth')
    torch.save(dict(state_dict=Toy(layers=2).state_dict()), path)
    model = Toy()
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(InputError, match='does not fit Toy'):
        load_pretrained(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_unreadable_checkpoint(tmp_path):
    path = tmp_path / 'half.pth'
    torch.save(dict(state_dict=Toy().state_dict()), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match='half.pth cannot be read'):
        load_pretrained(Toy(), str(path))


def test_split_pretrained():
    kaiming = dict(type='Kaiming', layer='Conv2d')
    cfg = dict(type='Pretrained', checkpoint='F', prefix='P')
    assert split_pretrained(None) == ([], None)
    assert split_pretrained(kaiming) == ([kaiming], None)
    assert split_pretrained([cfg, kaiming]) == (
        [kaiming], dict(checkpoint='F', prefix='P'))


def test_advice_of_a_missing_file_is_for_whoever_reads_it(tmp_path):
    """A backbone may start from random weights; a conversion may not."""
    path = str(tmp_path / 'none.pth')
    with pytest.raises(InputError, match='none.pth does not exist$'):
        read_checkpoint(path)
    with pytest.raises(InputError, match=r"pretrained checkpoint '\S+none.pth'"
                       ' does not exist, .*; train it first, or set init_cfg'):
        AdderResNet(18, init_cfg=dict(
            type='Pretrained', checkpoint=path)).init_weights()
