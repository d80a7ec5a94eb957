"""Conversions against AdderNet as modules, and against themselves."""
import copy

import pytest
import torch
from mmengine.config import Config
from official_adder_net import make_adder_net
from torch import nn

from mmadder.checkpoints import convert as convert_module
from mmadder.checkpoints import (
    convert_checkpoint,
    convert_variant,
    from_official,
    largest_deviation,
    official_logits,
    outputs,
    recorded_config,
    set_weight_norm,
)
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics


@pytest.fixture(autouse=True)
def small_noise(monkeypatch):
    """A quarter of the pixels, in float64, proves as much of small nets."""
    noise = convert_module._noise
    monkeypatch.setattr(convert_module, '_noise',
                        lambda size=32: noise(size))


def classifier_config(depth, weight_norm=None, num_classes=10):
    """ImageClassifier with the architecture of AdderNet's code."""
    backbone = dict(
        type='AdderResNetCIFAR' if depth == 20 else 'AdderResNet',
        depth=depth, conv_cfg=dict(type='AdderConv2d',
                                   weight_norm=weight_norm))
    head = dict(type='BNLogitsHead', in_channels=64, num_classes=num_classes)
    if depth == 50:
        head.update(in_channels=2048, bias=True)
    return Config(dict(default_scope='mmpretrain', model=dict(
        type='ImageClassifier', backbone=backbone,
        neck=dict(type='GlobalAveragePooling'), head=head)))


def classifier(*args, **kwargs):
    return build_model(classifier_config(*args, **kwargs))


def detector_config(weight_norm=None):
    """RetinaNet whose head has adders too, which no feature shows."""
    adder = dict(type='AdderConv2d', weight_norm=weight_norm)
    return Config(dict(default_scope='mmdet', model=dict(
        type='RetinaNet',
        backbone=dict(type='AdderResNet', depth=18, base_channels=4,
                      stem_channels=4, conv_cfg=adder,
                      out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[8, 16, 32], out_channels=8,
                  num_outs=3),
        bbox_head=dict(
            type='RetinaHead', num_classes=2, in_channels=8,
            feat_channels=8, stacked_convs=1, conv_cfg=adder,
            norm_cfg=dict(type='BN'),
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.], scales=[4],
                strides=[8, 16, 32])))))


def trained_like(config, std=.1):
    """A model that a training could have left: nothing is as initialized."""
    model = build_model(config)
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, AdderConv2d):
            torch.nn.init.normal_(layer.weight, std=std)
            if layer.awn is not None:
                torch.nn.init.uniform_(layer.awn.nu, .5, 2)
                torch.nn.init.normal_(layer.awn.upsilon)
    noise = torch.randn(4, 3, 64, 64)
    reestimate_statistics(
        model, [noise], lambda images: model(images, mode='tensor'))
    return model


def recorded_checkpoint(model, config):
    return dict(state_dict=model.state_dict(),
                meta=dict(cfg=config.pretty_text))


def convert(checkpoint, config, source=None):
    """What tools/convert_checkpoint.py does with a file's content."""
    recorded = recorded_config(checkpoint, config)
    return convert_checkpoint(
        checkpoint['state_dict'], build_model(config), source,
        recorded and build_model(recorded))


@pytest.fixture(scope='module')
def resnet20():
    """A randomized AdderNet, as its own module."""
    return make_adder_net(20)


@pytest.fixture
def trained(resnet20):
    """Return a function (variant): a small trained-looking classifier."""

    def make(variant):
        model = set_weight_norm(classifier(20), variant)
        state = from_official(resnet20.state_dict())
        model.load_state_dict(state, strict=False)
        torch.manual_seed(0)
        for layer in model.modules():
            if isinstance(layer, AdderConv2d) and layer.awn is not None:
                torch.nn.init.uniform_(layer.awn.nu, .5, 2)
                torch.nn.init.normal_(layer.awn.upsilon)
        return model

    return make


def check_import(official, model):
    images = torch.randn(2, 3, 40, 32)
    expected = copy.deepcopy(official).double()(images.double())
    state_dict = official.state_dict()
    converted, deviation, rounding = convert_checkpoint(state_dict, model)
    assert deviation < 1e-10
    assert rounding < 1e-5
    fresh = copy.deepcopy(model)
    fresh.load_state_dict(converted)
    assert largest_deviation(expected, outputs(fresh, images)) < 1e-5
    assert largest_deviation(
        expected, official_logits(state_dict, images.double())) < 1e-5


@pytest.mark.parametrize('weight_norm', [None, 'AWN'])
def test_import_of_resnet20(resnet20, weight_norm):
    check_import(resnet20, classifier(20, weight_norm))


@pytest.mark.slow
def test_import_of_resnet50():
    """A 1x1-convolution head with bias, and bottlenecks."""
    check_import(make_adder_net(50), classifier(50, num_classes=12))


@pytest.mark.parametrize('source, target', [
    ('ann', 'awn'), ('awn', 'ann'), ('ws', 'ann'), ('ws', 'awn'),
    ('ann', 'ann'), ('awn', 'awn'), ('ws', 'ws')])
def test_lossless_conversions(trained, source, target):
    model = trained(source)
    images = torch.randn(2, 3, 32, 32)
    expected = outputs(model, images)
    converted, deviation, rounding = convert_checkpoint(
        model.state_dict(), set_weight_norm(classifier(20), target), source)
    assert deviation < 1e-10
    # From ws, scale and shift are 1 and 0; all else is rounded.
    exact = source == target or (source, target) == ('ws', 'awn')
    assert (rounding < 1e-10) == exact
    other = set_weight_norm(classifier(20), target)
    other.load_state_dict(converted)
    assert largest_deviation(expected, outputs(other, images)) < 1e-5


@pytest.mark.parametrize('source, target', [
    (None, 'AWN'), ('AWN', None), ('WS', None), ('WS', 'AWN')])
def test_adders_shared_under_two_names(source, target):
    """As the branches of RetinaSepBNHead share theirs."""
    class Shared(nn.Module):
        def __init__(self, weight_norm):
            super().__init__()
            self.a = self.b = AdderConv2d(3, 4, 3, weight_norm=weight_norm)
            self.norm = nn.BatchNorm2d(4)

        def extract_feat(self, x):
            return self.norm(self.a(x)), self.b(x)

    torch.manual_seed(0)
    original, model = Shared(source), Shared(target)
    _, deviation, _ = convert_checkpoint(
        original.state_dict(), model, source.lower() if source else 'ann')
    assert deviation < 1e-10
    x = torch.randn(2, 3, 9, 9)
    assert largest_deviation(original.extract_feat(x),
                             model.extract_feat(x)) < 1e-5


def test_ann_to_awn_by_sigma_and_mu(trained):
    original = trained('ann')
    state = original.state_dict()
    converted = convert_variant(
        original, set_weight_norm(classifier(20), 'awn'))
    weight = state['backbone.layer2.0.conv1.weight']
    assert torch.equal(
        converted['backbone.layer2.0.conv1.weight'], weight)
    nu = converted['backbone.layer2.0.conv1.awn.nu']
    torch.testing.assert_close(
        nu, weight.flatten(1).std(1, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        converted['backbone.layer2.0.conv1.awn.upsilon'],
        weight.flatten(1).mean(1))


def test_refusals(trained, resnet20):
    ann, awn = trained('ann'), trained('awn')
    with pytest.raises(InputError, match=r'\(ann\) and .*\(ws\).* --source'):
        convert_checkpoint(ann.state_dict(), awn)
    with pytest.raises(InputError, match='has adaptive weight.*not ws'):
        convert_checkpoint(awn.state_dict(), ann, 'ws')
    with pytest.raises(InputError, match='has no adaptive weight.*not awn'):
        convert_checkpoint(ann.state_dict(), awn, 'awn')
    with pytest.raises(InputError, match='standardization has no scale'):
        convert_checkpoint(awn.state_dict(), trained('ws'))
    with pytest.raises(InputError, match='no adder layers'):
        cnn = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
        convert_checkpoint(ann.state_dict(), cnn, 'ann')
    with pytest.raises(InputError, match='not of this architecture'):
        convert_checkpoint(resnet20.state_dict(), classifier(50))
    with pytest.raises(InputError, match=r'of another shape.*\(10, 64\)'):
        convert_checkpoint(resnet20.state_dict(), classifier(20, None, 9))


NORMS = dict(
    ann=None, ws=dict(type='WS', eps=1e-2), awn=dict(type='AWN', eps=1e-2),
    awn_other=dict(type='AWN', eps=1e-3), ws_other='WS')


@pytest.mark.parametrize('make_config', [
    lambda norm: classifier_config(20, norm), detector_config])
@pytest.mark.parametrize('source, target', [
    ('awn', 'ann'), ('ws', 'ann'), ('ws', 'awn_other'), ('ann', 'awn'),
    ('awn', 'awn_other')])
def test_eps_of_the_recorded_config(make_config, source, target):
    """Weights as small as the root of eps, which then decides much."""
    own, config = map(make_config, (NORMS[source], NORMS[target]))
    model = trained_like(own)
    converted, deviation, rounding = convert(
        recorded_checkpoint(model, own), config)
    assert deviation < 1e-10
    assert rounding < 1e-5
    loaded = build_model(config)
    loaded.load_state_dict(converted)
    images = torch.randn(2, 3, 64, 64)
    assert largest_deviation(
        outputs(model, images), outputs(loaded, images)) < 1e-5
    for name, layer in model.named_modules():
        if isinstance(layer, AdderConv2d):  # those of a head too
            torch.testing.assert_close(
                loaded.get_submodule(name).normalized_weight,
                layer.normalized_weight)


def test_other_eps_of_weight_standardization():
    own = classifier_config(20, NORMS['ws'])
    with pytest.raises(InputError, match=r'an ws layer with eps 0\.01'):
        convert(recorded_checkpoint(trained_like(own), own),
                classifier_config(20, NORMS['ws_other']))


def test_variants_of_parts_may_differ():
    """An ablation: the head of a detector without weight norm."""
    own, config = detector_config('WS'), detector_config('AWN')
    own.model.bbox_head.conv_cfg = dict(type='AdderConv2d')
    model = trained_like(own)
    _, deviation, _ = convert(recorded_checkpoint(model, own), config)
    assert deviation < 1e-10
    own.model.bbox_head.conv_cfg = None
    with pytest.raises(InputError, match=r'bbox_head\.\S+: adders in one'):
        convert(recorded_checkpoint(build_model(own), own), config)


def test_source_is_the_recorded_one():
    own, config = classifier_config(20, 'WS'), classifier_config(20, 'AWN')
    checkpoint = recorded_checkpoint(trained_like(own), own)
    with pytest.raises(InputError, match='--source ann, but .* says ws'):
        convert(checkpoint, config, 'ann')
    own.model.backbone.conv_cfg = None
    checkpoint = recorded_checkpoint(build_model(own), own)
    with pytest.raises(InputError, match='trained with convolutions'):
        convert(checkpoint, config)


@pytest.mark.parametrize('setting', [
    dict(strides=(1, 1, 2)), dict(norm_cfg=dict(type='BN', eps=.1)),
    dict(conv_cfg=dict(type='AdderConv2d', weight_norm=None))])
def test_other_settings_with_the_same_keys_are_noticed(setting):
    own, config = classifier_config(20, 'WS'), classifier_config(20)
    own.model.backbone.update(setting)
    checkpoint = recorded_checkpoint(trained_like(own), own)
    if 'conv_cfg' in setting:  # the control
        convert(checkpoint, config)
        return
    with pytest.raises(InputError, match='deviate by .* from those of the ws'):
        convert(checkpoint, config)


@pytest.mark.parametrize('spoil', [
    lambda model: model.head.fc.weight.data.zero_(),
    lambda model: model.head.bn.weight.data.fill_(1e-6),
    lambda model: model.backbone.layer3[2].bn2.bias.data.fill_(-1e9)])
def test_outputs_that_do_not_vary_prove_nothing(spoil):
    config = classifier_config(20)
    model = trained_like(config)
    torch.nn.init.normal_(model.head.bn.bias)
    spoil(model)
    for target in (config, classifier_config(20, 'AWN')):
        with pytest.raises(InputError, match='prove nothing: train it first'):
            convert(recorded_checkpoint(model, config), target)


@pytest.mark.parametrize('layer', [
    'backbone.layer2.0.conv1', 'bbox_head.cls_convs.0.conv'])
def test_a_fault_in_one_filter_is_noticed(monkeypatch, layer):
    """Also where no feature shows it: in a head."""
    own, config = detector_config('AWN'), detector_config()
    checkpoint = recorded_checkpoint(trained_like(own), own)

    def faulty(*args):
        converted = convert_variant(*args)
        converted[f'{layer}.weight'][0] *= 1.001
        return converted

    monkeypatch.setattr(
        'mmadder.checkpoints.convert.convert_variant', faulty)
    with pytest.raises(InputError, match='deviate by'):
        convert(checkpoint, config)


# --------------------------------------------------------------- centered --


def centered_config(weight_norm, center=True):
    config = classifier_config(20, weight_norm)
    config.model.backbone.conv_cfg.center = center
    return config


@pytest.mark.parametrize('source, target', [
    ('WS', None), ('AWN', None), (None, 'AWN')])
def test_centered_adders(source, target):
    # Narrow filters less their mean amplify rounding without bounds.
    original = trained_like(centered_config(source), std=1)
    name = f'{(source or "ann").lower()}-centered'
    model = build_model(centered_config(target)).double()
    with pytest.raises(InputError, match=r'keys of .* are equal: say with '
                       '--source'):
        convert_checkpoint(original.state_dict(), model)
    convert_checkpoint(original.state_dict(), model, name)
    images = torch.randn(2, 3, 32, 32)
    assert largest_deviation(outputs(original, images),
                             outputs(model, images)) < 1e-4


@pytest.mark.parametrize('center', [False, True])
def test_centered_and_other_adders_differ(center):
    original = trained_like(centered_config('AWN', center))
    names = ('config', 'checkpoint')
    with pytest.raises(InputError, match='is centered in the '
                       f'{names[center]}, not in the {names[not center]}'):
        convert_checkpoint(
            original.state_dict(),
            build_model(centered_config('AWN', not center)),
            'awn' + '-centered' * center)


def test_a_finished_path_leaves_no_trace():
    """Its t of 1 need not be said of an adder."""
    original = trained_like(centered_config('AWN'))
    for layer in original.modules():
        if isinstance(layer, AdderConv2d):
            layer.set_adder_fraction(1)
    model = build_model(centered_config(None))
    converted, *_ = convert_checkpoint(
        original.state_dict(), model, 'awn-centered')
    assert not any(key.endswith('fraction') for key in converted)
