"""Networks of PyTorch as ONNX graphs."""
import copy

import pytest
import torch
from geometries import GEOMETRIES
from torch import nn

from mmadder.errors import InputError
from mmadder.export import Network, to_onnx
from mmadder.export.onnx_graph import node_names, with_adder_nodes
from mmadder.inference import fuse_adder_bn
from mmadder.layers import AdderConv2d

pytest.importorskip('onnxruntime')
from onnx_tools import start


class Rows(Network):
    """One layer after another, each an output too."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.output_names = tuple(f'out.{i}' for i in range(len(layers)))
        self.eval()

    def forward(self, images):
        found = []
        for layer in self.layers:
            images = layer(images)
            found.append(images)
        return tuple(found)


class Branches(Rows):
    """All layers of one input, of as many channels as each wants."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.channels = [layer.in_channels for layer in layers]

    def forward(self, images):
        return tuple(
            layer(images[:, :1].expand(-1, channels, -1, -1)
                  * torch.linspace(.5, 2, channels)[:, None, None])
            for layer, channels in zip(self.layers, self.channels))


def adder(geometry, **options):
    return AdderConv2d(
        geometry.in_channels, geometry.out_channels, geometry.kernel,
        *geometry.arguments, weight_norm='AWN', **options)


def compare(network, model, *shapes):
    session = start(model)
    torch.manual_seed(1)
    for shape in shapes:
        images = torch.randn(shape)
        with torch.no_grad():
            expected = copy.deepcopy(network).double()(images.double())
        found = session.run(None, dict(images=images.numpy()))
        assert len(found) == len(expected)
        for own, other in zip(expected, found):
            assert own.shape == other.shape
            torch.testing.assert_close(
                torch.from_numpy(other).double(), own, rtol=0,
                # Centered outputs have the rounding of their distances.
                atol=1e-4 * own.abs().max().item())


def test_geometries():
    torch.manual_seed(0)
    layers = [adder(geometry, bias=i % 2 == 0,
                    center=geometry.out_channels > 2 * geometry.groups)
              for i, geometry in enumerate(GEOMETRIES)]
    for layer in layers[::2]:
        nn.init.normal_(layer.bias)
    network = Branches(*layers)
    model = to_onnx(network, (17, 23), dynamic_size=True)
    compare(network, model, (2, 3, 17, 23), (1, 3, 40, 18))
    kinds = [node.op_type for node in model.graph.node
             if node.domain == 'mmadder']
    assert kinds == ['CenteredAdderConv2d' if layer.center
                     else 'AdderConv2d' for layer in layers]
    assert [f.name for f in model.functions] == ['AdderConv2d',
                                                 'CenteredAdderConv2d']


@pytest.fixture(scope='module')
def rows():
    torch.manual_seed(0)
    first, norm = AdderConv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
    twice = AdderConv2d(8, 8, (3, 1), padding=(1, 0))
    norm.train()(first(torch.randn(4, 3, 9, 9)))
    return Rows(first, norm, twice, nn.ReLU(), twice)


def test_graph(rows):
    model = to_onnx(rows, (9, 8))
    compare(rows, model, (1, 3, 9, 8), (5, 3, 9, 8))
    assert [node.op_type for node in model.graph.node] == [
        'AdderConv2d', 'BatchNormalization', 'AdderConv2d', 'Relu',
        'AdderConv2d']
    assert node_names(model, ['AdderConv2d']) == [
        'layers.0', 'layers.2', 'layers.4']
    images, = model.graph.input
    assert [dim.dim_param or dim.dim_value
            for dim in images.type.tensor_type.shape.dim] == [
                'batch', 3, 9, 8]
    assert [len(entry.dims) for entry in model.graph.initializer].count(
        4) == 2  # weights, once each
    # Nothing of the machine that wrote it.
    text = str(model)
    assert 'stack_trace' not in text and '.py' not in text
    domains = {entry.domain: entry.version for entry in model.opset_import}
    assert domains == {'': 18, 'mmadder': 1}
    used = {node.domain for function in model.functions
            for node in function.node}
    assert used == {''}


def test_any_size_and_a_newer_opset(rows):
    model = to_onnx(rows, (9, 8), dynamic_size=True, opset=21)
    compare(rows, model, (2, 3, 9, 8), (1, 3, 5, 12))
    images, = model.graph.input
    assert [dim.dim_param or dim.dim_value
            for dim in images.type.tensor_type.shape.dim] == [
                'batch', 3, 'height', 'width']
    assert {entry.version for entry in model.functions[0].opset_import
            } == {21}


@pytest.mark.parametrize('opset, word', [(17, 'old'), (99, 'new')])
def test_opset(rows, opset, word):
    with pytest.raises(InputError, match=f'opset {opset} is too {word}'):
        to_onnx(rows, (9, 8), opset=opset)


def test_training_mode():
    network = Rows(nn.Sequential(AdderConv2d(3, 4, 3), nn.BatchNorm2d(4)))
    network.layers[0][1].train()
    with pytest.raises(InputError, match=(
            r'layers\.0\.1 \(BatchNorm2d\) is in training mode')):
        to_onnx(network, (9, 8))


def test_on_its_way_from_a_convolution():
    network = Rows(AdderConv2d(3, 4, 3))
    network.layers[0].set_adder_fraction(.5)
    with pytest.raises(InputError, match='export: .*adder_fraction 0.5'):
        to_onnx(network, (9, 8))


def test_fused():
    network = Rows(fuse_adder_bn(nn.Sequential(AdderConv2d(3, 4, 3)).eval()))
    with pytest.raises(InputError, match=(
            r'layers\.0\.0 is a fused adder; .* before fuse_adder_bn')):
        to_onnx(network, (9, 8))


class OtherAdder(AdderConv2d):

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_layer_that_computes_something_else():
    with pytest.raises(InputError, match=(
            r'layers\.0 \(OtherAdder\) computes something else')):
        with_adder_nodes(Rows(OtherAdder(3, 4, 3)))


class Deciding(nn.Module):

    def forward(self, x):
        return x if x.sum().item() > 0 else -x


class Sorting(nn.Module):

    def forward(self, x):
        return torch.ops.mmadder.adder_conv2d(
            x, x[:, :, :1, :1], [1, 1], [0, 0], [1, 1], 1, 'auto',
            'hardtanh', False)


class Fixing(nn.Module):

    def forward(self, x):
        return x + torch.zeros(x.shape[0], 3, 512, int(x.shape[3]))


@pytest.mark.parametrize('module', [Deciding(), Sorting()])
def test_a_module_that_cannot_be_exported_is_named(module):
    network = Rows(nn.Sequential(nn.ReLU(), module))
    with pytest.raises(InputError, match=(
            rf'layers\.0\.1 \({type(module).__name__}\) cannot be exported')):
        to_onnx(network, (9, 8))


def test_a_size_that_a_module_fixes():
    with pytest.raises(InputError, match=(
            'the model fixes the height of the pictures to 512; leave '
            '--dynamic-size out')):
        to_onnx(Rows(Fixing()), (9, 8), dynamic_size=True)
