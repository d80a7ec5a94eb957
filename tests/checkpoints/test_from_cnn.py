"""A trained CNN computes the same as the beginning of an adder network."""
import copy

import pytest
import torch
import torchvision
from mmengine.config import Config
from torch import nn

from mmadder.checkpoints import convert_checkpoint, outputs
from mmadder.checkpoints.from_cnn import LEAST_DEVIATION
from mmadder.errors import InputError
from mmadder.inference import fuse_adder_bn
from mmadder.layers import AdderConv2d, adder_fraction
from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics

AWN = dict(type='AdderConv2d', weight_norm='AWN', center=True)


def config(conv_cfg, depth=18, **backbone):
    backbone = {**dict(base_channels=8, stem_channels=8), **backbone}
    return Config(dict(default_scope='mmpretrain', model=dict(
        type='ImageClassifier',
        backbone=dict(type='AdderResNet', depth=depth, conv_cfg=conv_cfg,
                      **backbone),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, topk=(1, ),
                  in_channels=8 * backbone['base_channels'] * (
                      4 if depth == 50 else 1)))))


def trained_like(model, seed=0):
    """Nothing is as initialized; filters of all scales, dead ones too."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            filters = layer.weight.detach()
            filters += .1 * torch.randn(len(filters), 1, 1, 1)
            filters[1] *= 1e-3  # nearly dead
            filters[2] = 0
            filters[3] = .2  # all taps equal
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, .5, 2)
            nn.init.normal_(layer.bias)
    noise = torch.randn(4, 3, 64, 64)
    reestimate_statistics(
        model, [noise], lambda x: model(x, mode='tensor')
        if hasattr(model, 'head') else model(x))
    return model.eval()


def images():
    return torch.randn(3, 3, 48, 48, dtype=torch.float64)


def difference(expected, actual):
    assert expected.std(0).max() > 1e-3  # they depend on the picture
    return ((expected - actual).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('conv_cfg', [
    AWN, dict(type='AdderConv2d', weight_norm=dict(type='AWN', eps=1e-2)),
    dict(type='AdderConv2d')])
@pytest.mark.parametrize('depth', [18, 50])
def test_our_own_and_mmpretrains(depth, conv_cfg):
    cnn = trained_like(build_model(config(None, depth)))
    model = build_model(config(conv_cfg, depth))
    converted, deviation, rounding = convert_checkpoint(
        cnn.state_dict(), model, 'cnn')
    assert deviation < 1e-12 and rounding < 1e-5
    fresh = build_model(config(conv_cfg, depth))
    fresh.load_state_dict(converted)  # strict, as training does
    assert adder_fraction(fresh) == 0
    x = images()
    assert difference(outputs(cnn, x), outputs(fresh, x)) < 1e-5


def test_weights_have_the_scale_that_awn_keeps():
    cnn = trained_like(build_model(config(None)))
    model = build_model(config(AWN))
    convert_checkpoint(cnn.state_dict(), model, 'cnn')
    conv = cnn.backbone.layer2[0].conv2
    layer = model.backbone.layer2[0].conv2
    w = layer.normalized_weight.flatten(1)
    alive = conv.weight.flatten(1).std(1, correction=0) > (
        LEAST_DEVIATION * conv.weight.flatten(1).mean(1).abs())
    assert 4 <= alive.sum() < len(w)
    torch.testing.assert_close(
        w.std(1, correction=0)[alive], torch.ones(int(alive.sum())))
    assert w.isfinite().all() and w.abs().max() < 1e4


def test_eps_of_the_norm_counts():
    """Nearly dead filters would be 0.7 to 5 off without it."""
    cnn = trained_like(build_model(config(None)))
    for layer in cnn.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.clamp_(max=1e-4)
    model = build_model(config(AWN))
    _, deviation, _ = convert_checkpoint(cnn.state_dict(), model, 'cnn')
    assert deviation < 1e-11


def test_torchvisions_keys():
    """Its own model, as built: real weights are not at hand here."""
    torch.manual_seed(0)
    theirs = trained_like(torchvision.models.resnet18(num_classes=3))
    model = build_model(config(AWN, base_channels=64, stem_channels=64))
    convert_checkpoint(theirs.state_dict(), model, 'cnn')
    x = images()
    with torch.no_grad():
        expected = copy.deepcopy(theirs).double()(x)
    assert difference(expected, outputs(model, x)) < 1e-5


def test_bias_of_a_convolution():
    class Biased(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.conv, self.norm = layer, nn.BatchNorm2d(5)

        def extract_feat(self, x):
            return self.norm(self.conv(self.stem(x).relu()))

        forward = extract_feat

    torch.manual_seed(0)
    cnn = trained_like(Biased(nn.Conv2d(4, 5, 3)))
    for bias in (False, True):
        model = Biased(AdderConv2d(4, 5, 3, weight_norm='AWN', bias=bias))
        convert_checkpoint(cnn.state_dict(), model, 'cnn')
        x = images()
        assert difference(outputs(cnn, x), outputs(model, x)) < 1e-5


def test_one_tap_filters():
    """Their deviation is 0: they are divided by their value."""
    class Depthwise(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.conv, self.norm = layer, nn.BatchNorm2d(6)

        def extract_feat(self, x):
            return self.norm(self.conv(x))

        forward = extract_feat

    torch.manual_seed(0)
    cnn = Depthwise(nn.Conv2d(3, 6, 1, groups=3, bias=False))
    reestimate_statistics(cnn, [torch.randn(4, 3, 9, 9)], cnn)
    model = Depthwise(AdderConv2d(3, 6, 1, groups=3, weight_norm='AWN'))
    convert_checkpoint(cnn.state_dict(), model, 'cnn')
    assert model.conv.normalized_weight.abs().max() < 1.1
    x = images()
    assert difference(outputs(cnn, x), outputs(model, x)) < 1e-5


# ------------------------------------------------------------- bad input --


def test_weight_standardization_is_refused():
    cnn = build_model(config(None))
    model = build_model(config(dict(type='AdderConv2d', weight_norm='WS')))
    with pytest.raises(InputError, match='weight standardization has no '
                       'place for the mean of a filter, so backbone.layer1'):
        convert_checkpoint(cnn.state_dict(), model, 'cnn')


def test_an_adder_without_norm_is_refused():
    class Bare(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.conv = layer

        def extract_feat(self, x):
            return self.conv(x).relu()

    with pytest.raises(InputError, match='behind conv there is no batch '
                       'norm'):
        convert_checkpoint(
            Bare(nn.Conv2d(3, 4, 3)).state_dict(),
            Bare(AdderConv2d(3, 4, 3, weight_norm='AWN')), 'cnn')


def test_another_architecture_is_named():
    cnn = build_model(config(None, depth=50))
    with pytest.raises(InputError, match='does not fit ImageClassifier'
                       r'(.|\n)*keys not in the model: backbone.layer1.0.*'
                       'conv3'):
        convert_checkpoint(
            cnn.state_dict(), build_model(config(AWN)), 'cnn')


def test_a_model_without_adders():
    cnn = build_model(config(None))
    with pytest.raises(InputError, match='no adder layers'):
        convert_checkpoint(cnn.state_dict(), build_model(config(None)),
                           'cnn')


def test_what_begins_as_a_convolution_is_no_adder_yet():
    cnn = trained_like(build_model(config(None)))
    model = build_model(config(AWN))
    converted, *_ = convert_checkpoint(cnn.state_dict(), model, 'cnn')
    with pytest.raises(InputError, match='fuse_adder_bn: .* not adders yet'):
        fuse_adder_bn(model.eval())
    with pytest.raises(InputError, match='convert_checkpoint: .* not adders '
                       'yet'):
        convert_checkpoint(converted, build_model(config(
            dict(type='AdderConv2d', center=True))), 'awn-centered')
