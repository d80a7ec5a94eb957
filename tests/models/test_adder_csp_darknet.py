import pytest
import torch
from mmdet.models.backbones import CSPDarknet
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from mmadder.layers import AdderConv2d
from mmadder.models import AdderCSPDarknet

TINY = dict(deepen_factor=.33, widen_factor=.125)


def layers(model):
    return {name: type(m) for name, m in model.named_modules()
            if isinstance(m, (nn.Conv2d, AdderConv2d))}


@pytest.mark.parametrize('kwargs, expected', [
    ({}, [(2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)]),
    (dict(out_indices=(0, 1)), [(2, 8, 32, 48), (2, 16, 16, 24)]),
    (dict(arch='P6'), [(2, 32, 8, 12), (2, 64, 4, 6), (2, 96, 2, 3)]),
    (dict(use_depthwise=True),
     [(2, 32, 8, 12), (2, 64, 4, 6), (2, 128, 2, 3)])])
def test_shapes(kwargs, expected):
    model = AdderCSPDarknet(**TINY, **kwargs)
    features = model(torch.rand(2, 3, 64, 96))
    assert [tuple(x.shape) for x in features] == expected
    assert all(x.isfinite().all() for x in features)


@pytest.mark.parametrize('use_depthwise', [False, True])
def test_all_but_the_stem_are_adders(use_depthwise):
    model = AdderCSPDarknet(**TINY, use_depthwise=use_depthwise)
    kinds = layers(model)
    assert kinds.pop('stem.conv.conv') is nn.Conv2d
    assert len(kinds) > 20 and set(kinds.values()) == {AdderConv2d}


def test_without_adders_it_is_mmdets():
    torch.manual_seed(0)
    twin, other = AdderCSPDarknet(**TINY, conv_cfg=None), CSPDarknet(**TINY)
    other.load_state_dict(twin.state_dict())
    image = torch.rand(2, 3, 64, 64)
    for ours, theirs in zip(twin(image), other(image)):
        assert torch.equal(ours, theirs)
    adder_keys = list(AdderCSPDarknet(**TINY).state_dict())
    assert [key for key in adder_keys if '.awn.' not in key] == list(
        other.state_dict())


def test_arguments_reach_the_stem():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MMDET_MODELS.build(dict(
            type='AdderCSPDarknet', norm_cfg=dict(type='GN', num_groups=2),
            act_cfg=dict(type='ReLU'), frozen_stages=0, **TINY))
    model.init_weights()
    stem = model.stem.conv
    assert isinstance(stem.norm, nn.GroupNorm)
    assert isinstance(stem.activate, nn.ReLU)
    model.train()
    assert not any(p.requires_grad for p in stem.parameters())
    assert all(p.requires_grad for p in model.stage1.parameters())
