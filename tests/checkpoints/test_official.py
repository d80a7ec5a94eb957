"""What AdderNet's code computes, against its network as modules."""
import pytest
import torch
from mmengine.config import Config
from official_adder_net import make_adder_net

from mmadder.checkpoints import (
    convert_checkpoint,
    from_official,
    is_official,
    largest_deviation,
    official_logits,
)
from mmadder.checkpoints.official import require_head
from mmadder.errors import InputError
from mmadder.models import build_model


@pytest.mark.parametrize('depth', [
    20, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float32, 1e-3), (torch.float64, 1e-12)])
def test_logits(depth, dtype, tolerance):
    model = make_adder_net(depth)
    images = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        expected = model.double()(images.double())
    found = official_logits(model.float().state_dict(), images.to(dtype))
    assert found.dtype == dtype
    assert largest_deviation(expected, found.double()) < tolerance


@pytest.mark.parametrize('kind, own, bias, options', [
    ('LinearClsHead', {}, True,
     'model.head.type=BNLogitsHead model.head.bias=True'),
    ('LinearClsHead', {}, False, 'model.head.type=BNLogitsHead'),
    ('BNLogitsHead', {}, True, 'model.head.bias=True'),
    ('BNLogitsHead', dict(bias=True), False, 'model.head.bias=False')])
def test_options_for_the_head_of_a_file_are_named(kind, own, bias, options):
    """Of ResNet-50's, keys were listed that fit nothing."""
    state_dict = make_adder_net(20).state_dict()
    if bias:
        state_dict['fc.bias'] = torch.zeros(10)

    def model(kind, **kwargs):
        return build_model(Config(dict(default_scope='mmpretrain', model=dict(
            type='ImageClassifier', backbone=dict(
                type='AdderResNetCIFAR', depth=20, conv_cfg=dict(
                    type='AdderConv2d')),
            neck=dict(type='GlobalAveragePooling'), head=dict(
                type=kind, in_channels=64, num_classes=10, **kwargs)))))

    with pytest.raises(InputError, match=f'--cfg-options {options}$'):
        convert_checkpoint(state_dict, model(kind, **own))
    require_head(from_official(state_dict), model('BNLogitsHead', bias=bias))


def test_keys():
    state_dict = make_adder_net(20).state_dict()
    assert is_official(state_dict)
    renamed = from_official(state_dict)
    assert not is_official(renamed)
    assert len(renamed) == len(state_dict)
    assert torch.equal(renamed['backbone.layer1.0.conv1.weight'],
                       state_dict['layer1.0.conv1.adder'])
    assert renamed['head.fc.weight'].shape == (10, 64)
    assert torch.equal(renamed['head.bn.bias'], state_dict['bn2.bias'])
