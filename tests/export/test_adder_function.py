"""The adder in ONNX's operators against the reference."""
import sys

import pytest
import torch
from geometries import GEOMETRIES

from mmadder.export.adder_function import (
    CENTERED,
    PLAIN,
    AdderNode,
    adder_functions,
    filters_at_a_time,
)
from mmadder.layers import AdderConv2d
from mmadder.ops import reference
from mmadder.timing import peak_memory

pytest.importorskip('onnxruntime')
from onnx_tools import run_node


def call(geometry, input, weight, center=False, work=2**17, **options):
    kind = CENTERED if center else PLAIN
    size = reference.output_shape(input, weight, *geometry.arguments[:3])[2:]
    block = filters_at_a_time(geometry.out_channels // geometry.groups, *size)
    return run_node(
        adder_functions(18), kind,
        dict(input=input.numpy(), weight=weight.numpy()),
        dict(strides=geometry.stride, padding=geometry.padding,
             dilations=geometry.dilation, group=[geometry.groups],
             block=[block], work=[work]),
        rank=4, weights=['weight'], **options)


@pytest.mark.parametrize('work', [1, 300, 2**17])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_values(geometry, work):
    input, weight, _ = geometry.tensors()
    expected = reference.adder_conv2d(
        input.double(), weight.double(), *geometry.arguments)
    output = torch.from_numpy(call(geometry, input, weight, work=work)())
    taps = weight[0].numel()
    torch.testing.assert_close(
        output.double(), expected, rtol=0,
        atol=taps * 2**-23 * expected.abs().max().item())


@pytest.mark.parametrize('geometry', [
    geometry for geometry in GEOMETRIES
    if geometry.out_channels > geometry.groups])
def test_centered_values(geometry):
    input, weight, _ = geometry.tensors()
    expected = reference.adder_conv2d(
        input.double(), weight.double(), *geometry.arguments, center=True)
    output = torch.from_numpy(call(geometry, input, weight, center=True)())
    largest = reference.adder_conv2d(
        input, weight, *geometry.arguments).abs().max().item()
    torch.testing.assert_close(
        output.double(), expected, rtol=0,
        atol=weight[0].numel() * 2**-23 * largest)


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_stays_below_a_few_maps():
    geometry = GEOMETRIES[2]._replace(
        batch=1, in_channels=64, out_channels=64, size=(200, 160))
    input, weight, _ = geometry.tensors()
    run = call(geometry, input, weight, arena=False)
    # Padded input, stacked blocks, output and its copy, and what the system's
    # allocator adds. The unfolded input would be 9 maps, all differences 576.
    assert peak_memory(run) < 7 * input.numel() * 4


@pytest.mark.parametrize('filters, size, block', [
    (64, (9, 8), 16), (33, (9, 8), 11), (17, (9, 8), 1), (64, (100, 130), 8),
    (64, (300, 500), 4), (6, (300, 500), 3), (1, (9, 8), 1)])
def test_filters_at_a_time(filters, size, block):
    assert filters_at_a_time(filters, *size) == block


def test_node_of_a_layer():
    layer = AdderConv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0),
                        dilation=2, groups=2, bias=True, weight_norm='AWN',
                        center=True)
    node = AdderNode(layer)
    assert node.kind == 'CenteredAdderConv2d'
    assert node.attributes == dict(
        strides=[2, 1], padding=[1, 0], dilations=[2, 2], group=[2],
        work=[2**17])
    torch.testing.assert_close(node.weight, layer.normalized_weight)
    assert node.bias.shape == (6, 1, 1)
