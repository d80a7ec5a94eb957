"""Lists of layers against the networks that they stand for."""
from collections import Counter

import pytest
import torch
from mmengine.registry import MODELS

from mmadder.benchmark import shapes
from mmadder.benchmark.shapes import SHAPE_SETS, Layer
from mmadder.layers import AdderConv2d

RESNET18 = dict(type='AdderResNet', depth=18,
                conv_cfg=dict(type='AdderConv2d'))


def adder_layers(model, inputs):
    """Layers of the adders that a forward pass goes through."""
    layers, hooks = [], []

    def note(module, args, output):
        x, = args
        layer = Layer(len(x), x.shape[1], tuple(x.shape[2:]),
                      module.out_channels, module.kernel_size[0],
                      module.stride[0], module.groups)
        assert layer.out_size == output.shape[2:]
        layers.append(layer)

    for module in model.modules():
        if isinstance(module, AdderConv2d):
            hooks.append(module.register_forward_hook(note))
    with torch.no_grad():
        outputs = model(inputs)
    for hook in hooks:
        hook.remove()
    return Counter(layers), outputs


@pytest.mark.parametrize('size', [(64, 96), (50, 37)])
def test_resnet18_and_fpn_are_those_of_the_models(size):
    backbone = MODELS.build(RESNET18)
    neck = MODELS.build(dict(
        type='AdderFPN', in_channels=[64, 128, 256, 512], out_channels=256,
        num_outs=5, conv_cfg=dict(type='AdderConv2d')))
    backbone.out_indices = (0, 1, 2, 3)
    layers, features = adder_layers(backbone, torch.zeros(2, 3, *size))
    assert layers == Counter(shapes.resnet18(2, size))
    layers, _ = adder_layers(neck, features)
    assert layers == Counter(shapes.fpn(2, size))


def test_resnet20_is_that_of_the_model():
    model = MODELS.build(dict(type='AdderResNetCIFAR', depth=20,
                              conv_cfg=dict(type='AdderConv2d')))
    layers, _ = adder_layers(model, torch.zeros(2, 3, 32, 32))
    assert layers == Counter(shapes.resnet20(2))


def test_resnet18_has_the_known_operations():
    """1,814,073,344 less stem and classifier of 118,525,952."""
    layers = shapes.resnet18(1)
    assert len(layers) == 19
    assert sum(layer.terms for layer in layers) == 1_695_547_392


def test_groups_divide_the_terms():
    dense, grouped = (Layer(2, 32, (12, 12), 48, 3, groups=groups)
                      for groups in (1, 4))
    assert dense.terms == 2 * 48 * 144 * 32 * 9 == 4 * grouped.terms


def test_names_tell_layers_apart():
    assert str(Layer(2, 3, (7, 6), 5, 3)) == '2x3x7x6 3x3 5'
    assert str(Layer(2, 3, (7, 6), 5, 3, 2)) == '2x3x7x6 3x3 5 /2'
    assert str(Layer(2, 4, (7, 6), 8, 1, 1, 4)) == '2x4x7x6 1x1 8, 4 groups'


@pytest.mark.parametrize('name', SHAPE_SETS)
def test_each_layer_is_timed_once(name):
    layers = shapes.distinct_layers(name)
    assert set(layers) == set(SHAPE_SETS[name]())
    assert len({str(layer) for layer in layers}) == len(layers)


def test_batch_is_that_asked_for():
    assert {layer.batch for layer in shapes.distinct_layers('fpn', 3)} == {3}
    assert {layer.batch for layer in shapes.distinct_layers('fpn')} == {1}
