"""Conversions against AdderNet as modules, and against themselves."""
import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from official_adder_net import make_adder_net

from mmadder.checkpoints import (
    convert_checkpoint,
    convert_variant,
    from_official,
    largest_deviation,
    official_logits,
    outputs,
    set_weight_norm,
)
from mmadder.errors import InputError
from mmadder.layers import AWN, WS, AdderConv2d


def classifier(depth, weight_norm=None, num_classes=10):
    """ImageClassifier with the architecture of AdderNet's code."""
    backbone = dict(
        type='AdderResNetCIFAR' if depth == 20 else 'AdderResNet',
        depth=depth, conv_cfg=dict(type='AdderConv2d',
                                   weight_norm=weight_norm))
    head = dict(type='BNLogitsHead', in_channels=64, num_classes=num_classes)
    if depth == 50:
        head.update(in_channels=2048, bias=True)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(
            type='ImageClassifier', backbone=backbone,
            neck=dict(type='GlobalAveragePooling'), head=head))


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


def test_ann_to_awn_by_sigma_and_mu(trained):
    state = trained('ann').state_dict()
    converted = convert_variant(
        state, 'ann', set_weight_norm(classifier(20), 'awn'))
    weight = state['backbone.layer2.0.conv1.weight']
    assert torch.equal(
        converted['backbone.layer2.0.conv1.weight'], weight)
    nu = converted['backbone.layer2.0.conv1.awn.nu']
    torch.testing.assert_close(
        nu, weight.flatten(1).std(1, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        converted['backbone.layer2.0.conv1.awn.upsilon'],
        weight.flatten(1).mean(1))


def with_eps(model, eps):
    for layer in model.modules():
        if isinstance(layer, (AWN, WS)):
            layer.eps = eps
    return model


@pytest.mark.parametrize('source, target', [
    ('awn', 'ann'), ('ws', 'ann'), ('ws', 'awn'), ('awn', 'awn'),
    ('ann', 'awn')])
def test_eps_of_source_and_target_count(trained, source, target):
    """Weights of a deviation near the root of eps: without it, 12 % off."""
    model = with_eps(trained(source), 1e-2)
    for layer in model.modules():
        if isinstance(layer, AdderConv2d):
            layer.weight.data.mul_(.1)
    other = with_eps(set_weight_norm(classifier(20), target), 1e-3)
    converted, deviation, _ = convert_checkpoint(
        model.state_dict(), other, source, eps={'backbone': 1e-2})
    assert deviation < 1e-10
    images = torch.randn(2, 3, 32, 32)
    assert largest_deviation(
        outputs(model, images), outputs(other, images)) < 1e-5


def test_ws_of_another_eps_is_refused(trained):
    with pytest.raises(InputError, match=r'eps 1e-05.*ws layer \(eps 0.01'):
        convert_checkpoint(trained('ws').state_dict(), trained('ws'), 'ws',
                           eps={'backbone': 1e-2})


def test_outputs_that_do_not_vary_prove_nothing(trained):
    """A last norm of scale zero: any conversion would seem right."""
    model = trained('ann')
    model.head.bn.weight.data.zero_()
    with pytest.raises(InputError, match='do not vary with the picture'):
        convert_checkpoint(model.state_dict(), trained('awn'), 'ann')


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
