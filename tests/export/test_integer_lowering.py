"""Layers in integers beside the same in float."""
import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule
from settling import settle
from torch import nn

from mmadder.errors import InputError
from mmadder.export.integer_file import picture_codes
from mmadder.export.integer_graph import IntegerGraph
from mmadder.export.integer_lowering import calibrate, lower
from mmadder.export.onnx_graph import Network
from mmadder.inference import fuse_adder_bn
from mmadder.integer import integer_reference

MEAN, STD = torch.tensor([120.3, 110.8, 99.9]), torch.tensor([58., 57., 59.])


class Small(Network):
    """Stem, adders with a shortcut, a sum, pooling and a linear layer."""
    output_names = 'map', 'logits'

    def __init__(self, center=True, weight=1.):
        super().__init__()
        conv = dict(type='AdderConv2d', center=center)
        norm = dict(type='BN')
        self.stem = ConvModule(3, 8, 3, padding=1, norm_cfg=norm)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.first = ConvModule(8, 8, 3, padding=1, conv_cfg=conv,
                                norm_cfg=norm)
        self.second = ConvModule(8, 8, 1, conv_cfg=conv, norm_cfg=norm,
                                 act_cfg=None)
        self.gap, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        self.norm = nn.BatchNorm1d(5)
        with torch.no_grad():
            for layer in self.first, self.second:
                layer.conv.weight.mul_(weight)

    def forward(self, x):
        x = self.pool(self.stem(x))
        y = x + self.second(self.first(x))
        return y, self.norm(self.fc(self.gap(y).flatten(1)))


def pictures(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    smooth = nn.functional.interpolate(
        torch.rand(count, 3, 4, 5, generator=generator), (16, 22),
        mode='bilinear')
    codes = (255 * smooth).round()
    return (codes - MEAN.view(-1, 1, 1)) / STD.view(-1, 1, 1)


def lowered(bits=8, shift_only=False, **kwargs):
    model = Small(**kwargs)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    nn.init.normal_(model.norm.running_mean)
    settle(model, pictures(0, 16))
    fused = fuse_adder_bn(model)
    graph = IntegerGraph(fused)
    histograms = calibrate(graph, [pictures(0, 16)], progress=False)
    return fused, lower(graph, histograms, mean=MEAN, std=STD, bits=bits,
                        shift_only=shift_only)


def errors(fused, network):
    """Of each output, as a part of the spread of its values."""
    images = pictures(0, 16)
    with torch.no_grad():
        expected = fused(images)
    maps = integer_reference.run(network, picture_codes(
        images, MEAN.tolist(), STD.tolist()).numpy())
    return [np.sqrt(np.square(network.values(name, maps[source]).reshape(
        value.shape) - value.numpy()).mean()) / value.std().item()
        for (name, source), value in zip(network.outputs.items(), expected)]


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('weight', [1., 30.])  # beyond the range of inputs
def test_values_are_those_in_float(center, weight):
    assert max(errors(*lowered(center=center, weight=weight))) < .04


def test_more_bits_are_nearer():
    by_bits = [errors(*lowered(bits))[0] for bits in (8, 6, 4, 2)]
    assert by_bits == sorted(by_bits) and by_bits[0] < .03 < by_bits[2] < .5


def test_codes_of_few_bits_lie_in_them():
    network = lowered(3)[1]
    read = {step['input'] for step in network.steps
            if step['kind'] == 'adder'}
    assert {network.maps[name]['highest'] for name in read} == {7}
    assert network.maps['image']['highest'] == 255
    for step in network.steps:
        if step['kind'] == 'adder':
            assert network.array(step, 'weight').max() <= 7


def test_shift_only_has_powers_of_two():
    fused, network = lowered(shift_only=True)
    for step in network.steps:
        if step['kind'] == 'adder':
            sizes = np.abs(network.array(step, 'multiplier').astype(int))
            assert ((sizes & (sizes - 1)) == 0).all() and sizes.any()
    plain = errors(*lowered())
    assert plain[0] < errors(fused, network)[0] < .6


def test_the_padding_of_a_picture_is_its_mean():
    network = lowered()[1]
    assert network.maps['image']['zero_point'] == [120, 111, 100]


@pytest.mark.parametrize('weight, bias', [(0., .5), (1e-9, -4.6)])
def test_a_filter_beside_which_its_bias_is_huge(weight, bias):
    """Of a pruned class: its bias overflowed."""
    model = Small()
    settle(model, pictures(0, 16))
    model.norm = nn.Identity()
    with torch.no_grad():
        model.fc.weight[2] *= weight
        model.fc.bias[2] = bias
    fused = fuse_adder_bn(model.eval())
    graph = IntegerGraph(fused)
    network = lower(graph, calibrate(graph, [pictures(0, 16)],
                                     progress=False), mean=MEAN, std=STD)
    assert errors(fused, network)[1] < .04
    maps = integer_reference.run(network, picture_codes(
        pictures(0), MEAN.tolist(), STD.tolist()).numpy())
    logits = network.values('logits', maps[network.outputs['logits']])
    np.testing.assert_allclose(logits[:, 2].ravel(), bias, rtol=1e-4)


def test_what_cannot_be_lowered():
    model = settle(Small(), pictures(0))
    graph = IntegerGraph(fuse_adder_bn(model))
    with pytest.raises(InputError, match='there are no pictures'):
        calibrate(graph, [], progress=False)
    with pytest.raises(InputError, match='the output of stem.conv has values '
                       'that are not finite'):
        calibrate(graph, [pictures(0) * float('inf')], progress=False)
    histograms = calibrate(graph, [pictures(0)], progress=False)
    with pytest.raises(InputError, match='bits must be from 2 to 8, got 9'):
        lower(graph, histograms, mean=MEAN, std=STD, bits=9)
    graph.layers[2].module.mean.add_(1e9)
    with pytest.raises(InputError, match='first cannot be written in int'):
        lower(graph, histograms, mean=MEAN, std=STD)
