"""Fused models compute what their originals compute."""
import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet as MMDetResNet
from torch import nn

from mmadder.inference.fusion import (
    FusedAdderConv2d,
    FusedBlock,
    fuse_adder_bn,
)
from mmadder.layers import AdderConv2d
from mmadder.models import AdderFPN, AdderResNet

AWN = dict(type='AdderConv2d', weight_norm='AWN')


def settle(model, *inputs):
    """Give batch norms statistics and lopsided parameters; evaluate."""
    norms = [module for module in model.modules()
             if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of all batches
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    model.train()
    with torch.no_grad():
        model(*inputs)
    model.eval()
    return model


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('build', [
    lambda: AdderResNet(18, base_channels=8, stem_channels=8,
                        out_indices=(0, 3)),
    lambda: AdderResNet(50, base_channels=8, stem_channels=8,
                        out_indices=(0, 3)),
    lambda: AdderResNet(18, base_channels=8, stem_channels=8,
                        conv_cfg=dict(type='AdderConv2d'), out_indices=(1,)),
    lambda: MMDetResNet(18, base_channels=8, stem_channels=8, norm_eval=False,
                        conv_cfg=dict(type='AdderConv2d', weight_norm='WS')),
])
def test_backbones(build):
    x = torch.rand(4, 3, 72, 64)
    model = settle(build(), x)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        outputs, plain = fused(x), model(x)
        truth = copy.deepcopy(model).double()(x.double())
    for actual, unfused, expected in zip(outputs, plain, truth):
        noise = relative_error(unfused, expected)  # grows with the depth
        assert relative_error(actual, expected) < max(1e-5, 2 * noise)
        assert noise < 1e-3
    assert count(fused, AdderConv2d) == 0
    assert count(fused, FusedAdderConv2d) >= count(model, AdderConv2d) - 1
    assert count(fused, FusedBlock) == (16 if model.depth == 50 else 8)


@pytest.mark.parametrize('shortcut', [True, False])
def test_neck(shortcut):
    inputs = [torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)]
    model = settle(AdderFPN([8, 16], 12, shortcut=shortcut), inputs)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        for actual, expected in zip(fused(inputs), model(inputs)):
            assert relative_error(actual, expected) < 1e-5
    assert count(fused, FusedAdderConv2d) == 4
    assert count(fused, nn.BatchNorm2d) == 0


@pytest.mark.parametrize('act_cfg', [
    None, dict(type='ReLU'), dict(type='LeakyReLU', negative_slope=0.1)])
@pytest.mark.parametrize('bias', [True, False])
def test_conv_module(act_cfg, bias):
    x = torch.randn(2, 6, 9, 9)
    model = ConvModule(6, 8, 3, conv_cfg=AWN, norm_cfg=dict(type='BN'),
                       act_cfg=act_cfg, bias=bias)
    if bias:
        nn.init.normal_(model.conv.bias)
    model = settle(nn.Sequential(model), x)
    with torch.no_grad():
        assert relative_error(fuse_adder_bn(model)(x), model(x)) < 1e-5


@pytest.mark.parametrize('layers', [
    lambda: [AdderConv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()],
    lambda: [AdderConv2d(4, 6, 3, weight_norm='AWN'), nn.GroupNorm(2, 6)],
    lambda: [nn.Conv2d(4, 4, 1), AdderConv2d(4, 6, 1, stride=2),
             nn.BatchNorm2d(6), nn.Tanh()],
])
def test_sequential(layers):
    x = torch.randn(2, 4, 9, 9)
    model = settle(nn.Sequential(*layers()), x)
    fused = fuse_adder_bn(model)
    assert len(fused) == len(model)
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5


def test_step_by_step_equals_the_kernel():
    """Other dtypes and devices take the composed path."""
    x = torch.rand(2, 3, 64, 64)
    fused = fuse_adder_bn(settle(
        AdderResNet(18, base_channels=8, stem_channels=8), x))
    with torch.no_grad():
        expected, = copy.deepcopy(fused).double()(x.double())
        actual, = fused(x)
    assert relative_error(actual, expected.float()) < 1e-4


def test_original_trains_and_copy_refuses():
    x = torch.rand(2, 3, 32, 32)
    model = settle(AdderResNet(18, base_channels=8, stem_channels=8), x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse_adder_bn(model)
    assert all(torch.equal(value, before[key])
               for key, value in model.state_dict().items())
    model.train()
    model(x)[0].sum().backward()
    with pytest.raises(RuntimeError, match='fused model cannot be trained'):
        fused.train()
    with pytest.raises(RuntimeError, match='has no gradient'):
        fused(x.requires_grad_())


def test_copies_and_pickles():
    x = torch.rand(2, 3, 32, 32)
    fused = fuse_adder_bn(settle(
        AdderResNet(18, base_channels=8, stem_channels=8), x))
    with torch.no_grad():
        expected, = fused(x)
        for other in (copy.deepcopy(fused),
                      pickle.loads(pickle.dumps(fused))):
            assert torch.equal(other(x)[0], expected)


@pytest.mark.parametrize('model, message', [
    (nn.Sequential(AdderConv2d(2, 2, 1)), 'in training mode'),
    (nn.Sequential(nn.Conv2d(2, 2, 1)).eval(), 'has no AdderConv2d'),
])
def test_errors(model, message):
    with pytest.raises(RuntimeError, match=message):
        fuse_adder_bn(model)
