"""Which layers are found in a traced network."""
import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.detectors import RetinaNet
from settling import settle
from torch import nn

from mmadder.errors import InputError
from mmadder.export.export_networks import DenseNetwork
from mmadder.export.integer_graph import IntegerGraph
from mmadder.export.onnx_graph import Network
from mmadder.inference import fuse_adder_bn
from mmadder.models import AdderFPN, AdderResNet


class One(Network):
    """A module with one output."""
    output_names = ('y', )

    def __init__(self, module):
        super().__init__()
        self.model = module

    def forward(self, images):
        return self.model(images),


def graph_of(*layers):
    return IntegerGraph(One(nn.Sequential(*layers)).eval())


def pyramid():
    """Backbone, neck and head, fused."""
    width = [8, 16, 32, 64]
    model = RetinaNet(
        backbone=dict(type=AdderResNet, depth=18, stem_channels=8,
                      base_channels=8, out_indices=(0, 1, 2, 3)),
        neck=dict(type=AdderFPN, in_channels=width, out_channels=8,
                  num_outs=5),
        bbox_head=dict(
            type=RetinaHead, num_classes=3, in_channels=8, feat_channels=8,
            stacked_convs=1, anchor_generator=dict(
                type='mmdet.AnchorGenerator', octave_base_scale=4,
                scales_per_octave=1, ratios=[1.0],
                strides=[4, 8, 16, 32, 64]),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder')),
        test_cfg=dict(nms_pre=10))
    settle(model, torch.randn(2, 3, 64, 96), run=model.extract_feat)
    network = DenseNetwork(fuse_adder_bn(model)).eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))
    return network


def test_all_of_a_detector():
    network = pyramid()
    graph = IntegerGraph(network)
    kinds = [layer.kind for layer in graph.layers]
    # 19 and 8 adders, 3 sums; a stem, and twice two layers at five levels.
    assert [kinds.count(kind) for kind in (
        'adder', 'convolution', 'max_pool', 'sum', 'average')] == [
            19 + 8, 1 + 20, 2, 3, 0]
    names = [layer.name for layer in graph.layers]
    assert len(set(names)) == len(names)
    assert list(graph.outputs) == list(network.output_names)
    by_name = {layer.name: layer for layer in graph.layers}
    stem = by_name['backbone.conv1']
    assert stem.relu and stem.norm is not None and stem.inputs == ['image']
    last = by_name['backbone.layer4.0.layers.1']
    assert last.residual == 'backbone.layer4.0.downsample.0' and last.relu
    shortcut = by_name['neck.fpn_convs.0']
    assert shortcut.residual == shortcut.inputs[0]
    heads = {layer.module for layer in graph.layers
             if layer.name.startswith('bbox_head.retina_cls')}
    assert len(heads) == 1


def test_values_are_those_of_the_network():
    network = pyramid()
    graph, found = IntegerGraph(network), {}
    images = torch.randn(2, 3, 64, 96)
    graph.run(images, found.__setitem__)
    assert list(found) == [layer.name for layer in graph.layers]
    with torch.no_grad():
        for value, name in zip(network(images), graph.outputs.values()):
            torch.testing.assert_close(found[name], value)
    conv = network.model.backbone
    expected = conv.relu(conv.norm1(conv.conv1(images)))
    torch.testing.assert_close(found['backbone.conv1'], expected)


class Twice(nn.Module):
    """One convolution on two levels, and a sum with ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.adder = ConvModule(
            4, 4, 3, padding=1, conv_cfg=dict(type='AdderConv2d'),
            norm_cfg=dict(type='BN'), act_cfg=None)

    def forward(self, x):
        x = self.conv(x)
        return torch.relu(self.adder(x) + self.adder(x))


def test_repeated_layers_and_relu_behind_a_sum():
    model = fuse_adder_bn(settle(Twice(), torch.randn(2, 3, 5, 5)))
    layers = IntegerGraph(One(model).eval()).layers
    assert [(layer.name, layer.kind, layer.relu) for layer in layers] == [
        ('conv', 'convolution', False), ('adder', 'adder', False),
        ('adder.1', 'adder', False), ('add', 'sum', True)]


class Sums(nn.Module):

    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, 4, 3, padding=1)
        self.gap = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        a, b = self.conv(x), self.conv(x)
        if self.kind == 'in place':
            c = a
            a += b
            return torch.relu(a + c)
        if self.kind == 'in place, alone':
            a += b
            return torch.relu(a)
        if self.kind == 'pooled first':
            return torch.relu(self.gap(a) + b)
        return a[:, :, :1] + b


def test_a_sum_in_place():
    """What others read of the map was the map before."""
    kinds = [layer.kind for layer in graph_of(Sums('in place, alone')).layers]
    assert kinds == ['convolution', 'convolution', 'sum']
    with pytest.raises(InputError, match='changes in place what others read'):
        graph_of(Sums('in place'))


def test_the_larger_map_of_a_sum_comes_first():
    """Its size is that of the sum."""
    layers = graph_of(Sums('pooled first')).layers
    larger, average, total = layers[1:]
    assert average.kind == 'average'
    assert total.inputs == [larger.name, average.name]


@pytest.mark.parametrize('layers, message', [
    ([nn.Conv2d(3, 4, 1), nn.Sigmoid()], r'model.1 \(Sigmoid\)'),
    ([nn.Conv2d(3, 3, 1, groups=3)], r'model.0 \(Conv2d with groups'),
    ([nn.Conv2d(3, 4, 3, padding='same')], 'padding by name'),
    ([nn.Conv2d(3, 4, 3, padding=1, padding_mode='reflect')], r'model.0 \('),
    ([nn.MaxPool2d(2)], r'model.0 \(MaxPool2d'),  # of the picture
    ([nn.Conv2d(3, 4, 1), nn.MaxPool2d(2, ceil_mode=True)], 'ceil_mode'),
    ([nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)], r'\(Upsample\)'),
    ([nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
     r'model.2 \(BatchNorm2d\)'),
    ([nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2)], r'\(Flatten\)'),
    ([nn.Softplus()], r'model.0 \(Softplus\)')])
def test_what_has_no_step_is_named(layers, message):
    with pytest.raises(InputError, match=f'has no step for .*{message}'):
        graph_of(*layers)


class Decides(nn.Module):

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced():
    with pytest.raises(InputError, match='has no integer network: torch'):
        graph_of(Decides())
