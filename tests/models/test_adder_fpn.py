import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import DefaultScope
from torch import nn

from mmadder.errors import InputError
from mmadder.inference import fuse_adder_bn
from mmadder.layers import AdderConv2d
from mmadder.models import AdderFPN

IN_CHANNELS = [8, 16, 32, 64]


def pyramid(batch=2):
    return [torch.rand(batch, channels, 32 // 2**i, 24 // 2**i)
            for i, channels in enumerate(IN_CHANNELS)]


def test_p2_to_p6():
    neck = AdderFPN(IN_CHANNELS, 8)
    outputs = neck(pyramid())
    assert [tuple(x.shape) for x in outputs] == [
        (2, 8, 32, 24), (2, 8, 16, 12), (2, 8, 8, 6), (2, 8, 4, 3),
        (2, 8, 2, 2)]
    assert torch.equal(outputs[4], outputs[3][:, :, ::2, ::2])


def test_eight_adders_with_norm_and_without_activation():
    neck = AdderFPN(IN_CHANNELS, 8)
    modules = [m for m in neck.modules() if isinstance(m, ConvModule)]
    assert len(modules) == 8
    for module in modules:
        assert isinstance(module.conv, AdderConv2d)
        assert module.conv.bias is None
        assert isinstance(module.norm, nn.BatchNorm2d)
        assert not module.with_activation
    assert not any(isinstance(m, nn.Conv2d) for m in neck.modules())


def test_shortcut_adds_the_merged_lateral():
    neck = AdderFPN(IN_CHANNELS, 8).eval()
    plain = AdderFPN(IN_CHANNELS, 8, shortcut=False).eval()
    plain.load_state_dict(neck.state_dict())
    inputs = pyramid()
    # the top-down path, written out
    merged = [conv(x) for conv, x in zip(neck.lateral_convs, inputs)]
    for i in (2, 1, 0):
        merged[i] = merged[i] + merged[i + 1].repeat_interleave(
            2, dim=2).repeat_interleave(2, dim=3)
    for output, without, lateral in zip(neck(inputs), plain(inputs), merged):
        torch.testing.assert_close(output, without + lateral)
        assert not torch.allclose(output, without)


def test_shortcuts_that_are_switched_off():
    neck = AdderFPN(IN_CHANNELS, 8).eval()
    plain = AdderFPN(IN_CHANNELS, 8, shortcut=False).eval()
    plain.load_state_dict(neck.state_dict())
    for module in neck.fpn_convs:
        module.adds_input = False
    inputs = pyramid()
    with torch.no_grad():
        for model in (neck, fuse_adder_bn(neck)):
            for output, expected in zip(model(inputs), plain(inputs)):
                torch.testing.assert_close(
                    output, expected, rtol=1e-4, atol=1e-4)


def test_cnn_twin_differs_in_awn_keys_only():
    adder = AdderFPN(IN_CHANNELS, 8).state_dict()
    twin = AdderFPN(IN_CHANNELS, 8, conv_cfg=None)
    assert {key: x.shape for key, x in twin.state_dict().items()} == {
        key: x.shape for key, x in adder.items() if '.awn.' not in key}
    assert not any(isinstance(m, AdderConv2d) for m in twin.modules())
    assert twin.shortcut


def test_twin_without_shortcut_and_norm_is_mmdet_fpn():
    torch.manual_seed(0)
    twin = AdderFPN(IN_CHANNELS, 8, shortcut=False, conv_cfg=None,
                    norm_cfg=None)
    fpn = FPN(IN_CHANNELS, 8, 5)
    fpn.load_state_dict(twin.state_dict())
    inputs = pyramid()
    for output, expected in zip(twin(inputs), fpn(inputs)):
        assert torch.equal(output, expected)


def test_number_of_parameters():
    neck = AdderFPN([32, 64, 128, 256], 64)
    weights = (32 + 64 + 128 + 256) * 64 + 4 * 9 * 64 * 64
    norms = 8 * 2 * 64  # batch norms, and as many in AWN
    assert sum(p.numel() for p in neck.parameters()) == weights + 2 * norms


@pytest.mark.parametrize('kwargs', [
    dict(norm_cfg=None), dict(no_norm_on_lateral=True)])
def test_adders_need_a_norm(kwargs):
    with pytest.raises(InputError, match='lateral_convs.0 .* without norm'):
        AdderFPN(IN_CHANNELS, 8, **kwargs)


def test_extra_convolutions_have_no_shortcut():
    neck = AdderFPN(IN_CHANNELS, 8, num_outs=6, add_extra_convs='on_output')
    assert [tuple(x.shape[2:]) for x in neck(pyramid())] == [
        (32, 24), (16, 12), (8, 6), (4, 3), (2, 2), (1, 1)]


def test_init_weights_keeps_the_adders_initialization():
    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = MMDET_MODELS.build(dict(
            type='AdderFPN', in_channels=[64, 64], out_channels=64,
            num_outs=2))
    neck.init_weights()
    for module in neck.fpn_convs:
        assert abs(module.conv.weight.std() - 1) < 0.1


def test_gradients_reach_every_parameter():
    neck = AdderFPN(IN_CHANNELS, 8).train()
    sum(x.square().mean() for x in neck(pyramid())).backward()
    for name, parameter in neck.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
