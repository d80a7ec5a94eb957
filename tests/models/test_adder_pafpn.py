import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.necks import PAFPN
from mmengine.registry import MODELS
from torch import nn

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import AdderFPN, AdderPAFPN

IN_CHANNELS = [8, 16, 32, 64]


def pyramid(batch=2):
    return [torch.rand(batch, channels, 32 // 2**i, 24 // 2**i)
            for i, channels in enumerate(IN_CHANNELS)]


def test_p2_to_p6():
    neck = MODELS.build(dict(
        type='AdderPAFPN', in_channels=IN_CHANNELS, out_channels=8))
    outputs = neck(pyramid())
    assert [tuple(x.shape) for x in outputs] == [
        (2, 8, 32, 24), (2, 8, 16, 12), (2, 8, 8, 6), (2, 8, 4, 3),
        (2, 8, 2, 2)]


def test_fourteen_adders_with_norm_and_without_activation():
    modules = [m for m in AdderPAFPN(IN_CHANNELS, 8).modules()
               if isinstance(m, ConvModule)]
    assert len(modules) == 14  # 4 lateral, 4 output, 3 down, 3 after
    for module in modules:
        assert isinstance(module.conv, AdderConv2d)
        assert module.conv.awn is not None
        assert isinstance(module.norm, nn.BatchNorm2d)
        assert not module.with_activation


def test_shortcut_around_every_stride_1_adder_of_3x3():
    """Both paths written out, with the layers of a neck without shortcuts."""
    neck = AdderPAFPN(IN_CHANNELS, 8).eval()
    plain = AdderPAFPN(IN_CHANNELS, 8, shortcut=False).eval()
    plain.load_state_dict(neck.state_dict())
    inputs = pyramid()
    merged = [conv(x) for conv, x in zip(plain.lateral_convs, inputs)]
    for i in (2, 1, 0):
        merged[i] = merged[i] + merged[i + 1].repeat_interleave(
            2, dim=2).repeat_interleave(2, dim=3)
    middle = [x + conv(x) for conv, x in zip(plain.fpn_convs, merged)]
    expected = middle[:1]
    for i in (1, 2, 3):
        middle[i] = middle[i] + plain.downsample_convs[i - 1](middle[i - 1])
        expected.append(middle[i] + plain.pafpn_convs[i - 1](middle[i]))
    for output, without, x in zip(neck(inputs), plain(inputs), expected):
        torch.testing.assert_close(output, x)
        assert not torch.allclose(output, without)


def test_twin_without_shortcut_and_norm_is_mmdet_pafpn():
    twin = AdderPAFPN(IN_CHANNELS, 8, shortcut=False, conv_cfg=None,
                      norm_cfg=None)
    pafpn = PAFPN(IN_CHANNELS, 8, 5)
    pafpn.load_state_dict(twin.state_dict())
    inputs = pyramid()
    for output, expected in zip(twin(inputs), pafpn(inputs)):
        assert torch.equal(output, expected)


def test_has_the_keys_of_the_fpn_and_of_the_new_path():
    fpn = AdderFPN(IN_CHANNELS, 8).state_dict()
    own = AdderPAFPN(IN_CHANNELS, 8).state_dict()
    assert set(fpn) <= set(own)
    assert {key.split('.')[0] for key in set(own) - set(fpn)} == {
        'downsample_convs', 'pafpn_convs'}


@pytest.mark.parametrize('kwargs', [
    dict(norm_cfg=None), dict(no_norm_on_lateral=True)])
def test_adders_need_a_norm(kwargs):
    with pytest.raises(InputError, match='lateral_convs.0 of AdderPAFPN .* '
                       'without norm'):
        AdderPAFPN(IN_CHANNELS, 8, **kwargs)


def test_gradients_reach_every_parameter():
    neck = AdderPAFPN(IN_CHANNELS, 8).train()
    sum(x.square().mean() for x in neck(pyramid())).backward()
    for name, parameter in neck.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
