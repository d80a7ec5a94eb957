"""Fused models compute what their originals compute."""
import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones import ResNet as MMDetResNet
from mmengine.model import Sequential
from mmpretrain.models.backbones.resnet import BasicBlock
from settling import relative_error, settle
from torch import nn

from mmadder.errors import InputError
from mmadder.inference import FusedAdderConv2d, FusedBlock, fuse_adder_bn
from mmadder.inference.post_training import QuantizedAdderConv2d
from mmadder.layers import AdderConv2d
from mmadder.models import AdderFPN, AdderResNet

AWN = dict(type='AdderConv2d', weight_norm='AWN')


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize('build', [
    lambda: AdderResNet(18, base_channels=8, stem_channels=8,
                        out_indices=(0, 3)),
    lambda: AdderResNet(50, base_channels=8, stem_channels=8,
                        out_indices=(0, 3)),
    lambda: AdderResNet(18, base_channels=8, stem_channels=8,
                        conv_cfg=dict(type='AdderConv2d'), out_indices=(1,)),
    lambda: MMDetResNet(18, base_channels=8, stem_channels=8, norm_eval=False,
                        conv_cfg=dict(type='AdderConv2d', weight_norm='WS')),
    lambda: AdderResNet(18, base_channels=8, stem_channels=8,
                        conv_cfg=dict(type='AdderConv2d', weight_norm='AWN',
                                      center=True)),
])
def test_backbones(build):
    torch.manual_seed(0)  # of 150 seeds, 4 have more noise than is allowed
    x = torch.rand(4, 3, 72, 64)
    model = settle(build(), x)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        outputs, plain = fused(x), model(x)
        truth = copy.deepcopy(model).double()(x.double())
    for actual, unfused, expected in zip(outputs, plain, truth):
        noise = relative_error(unfused, expected)  # grows with the depth
        assert relative_error(actual, expected) < max(1e-5, 2 * noise)
        assert noise < 1e-3
    assert count(fused, AdderConv2d) == 0
    assert count(fused, FusedAdderConv2d) >= count(model, AdderConv2d) - 1
    assert count(fused, FusedBlock) == (16 if model.depth == 50 else 8)


@pytest.mark.parametrize('shortcut', [True, False])
def test_neck(shortcut):
    inputs = [torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)]
    model = settle(AdderFPN([8, 16], 12, shortcut=shortcut), inputs)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        for actual, expected in zip(fused(inputs), model(inputs)):
            assert relative_error(actual, expected) < 1e-5
    assert count(fused, FusedAdderConv2d) == 4
    assert count(fused, nn.BatchNorm2d) == 0


@pytest.mark.parametrize('act_cfg', [
    None, dict(type='ReLU'), dict(type='LeakyReLU', negative_slope=0.1)])
@pytest.mark.parametrize('bias', [True, False])
def test_conv_module(act_cfg, bias):
    x = torch.randn(2, 6, 9, 9)
    model = ConvModule(6, 8, 3, conv_cfg=AWN, norm_cfg=dict(type='BN'),
                       act_cfg=act_cfg, bias=bias)
    if bias:
        nn.init.normal_(model.conv.bias)
    model = settle(nn.Sequential(model), x)
    with torch.no_grad():
        assert relative_error(fuse_adder_bn(model)(x), model(x)) < 1e-5


@pytest.mark.parametrize('layers', [
    lambda: [AdderConv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()],
    lambda: [AdderConv2d(4, 6, 3, weight_norm='AWN'), nn.GroupNorm(2, 6)],
    lambda: [nn.Conv2d(4, 4, 1), AdderConv2d(4, 6, 1, stride=2),
             nn.BatchNorm2d(6), nn.Tanh()],
])
def test_sequential(layers):
    x = torch.randn(2, 4, 9, 9)
    model = settle(nn.Sequential(*layers()), x)
    fused = fuse_adder_bn(model)
    assert len(fused) == len(model)
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_centered(dtype):
    """By the kernel, and step by step."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 9)
    model = settle(nn.Sequential(
        AdderConv2d(6, 8, 3, groups=2, bias=True, center=True),
        nn.BatchNorm2d(8), nn.ReLU()), x).to(dtype)
    with torch.no_grad():
        assert relative_error(
            fuse_adder_bn(model)(x.to(dtype)), model(x.to(dtype))) < 1e-5


def test_step_by_step_equals_the_kernel():
    """Other dtypes and devices take the composed path."""
    x = torch.rand(2, 3, 64, 64)
    fused = fuse_adder_bn(settle(
        AdderResNet(18, base_channels=8, stem_channels=8), x))
    with torch.no_grad():
        expected, = copy.deepcopy(fused).double()(x.double())
        actual, = fused(x)
    assert relative_error(actual, expected.float()) < 1e-4


def test_original_trains_and_copy_refuses():
    x = torch.rand(2, 3, 32, 32)
    model = settle(AdderResNet(18, base_channels=8, stem_channels=8), x)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse_adder_bn(model)
    assert all(torch.equal(value, before[key])
               for key, value in model.state_dict().items())
    assert not fused(x)[0].requires_grad  # without no_grad
    model.train()
    model(x)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(RuntimeError, match='fused model cannot be trained'):
        fused.train()
    with pytest.raises(RuntimeError, match='has no gradient'):
        fused(x.requires_grad_())


def test_shapes_on_the_meta_device():
    model = AdderResNet(18, base_channels=8, stem_channels=8).eval()
    images = torch.empty(2, 3, 64, 64, device='meta')
    for fused in (fuse_adder_bn(copy.deepcopy(model).to('meta')),
                  fuse_adder_bn(model).to('meta')):
        assert fused(images)[0].shape == (2, 64, 2, 2)


def test_copies_and_pickles():
    x = torch.rand(2, 3, 32, 32)
    fused = fuse_adder_bn(settle(
        AdderResNet(18, base_channels=8, stem_channels=8), x))
    with torch.no_grad():
        expected, = fused(x)
        for other in (copy.deepcopy(fused),
                      pickle.loads(pickle.dumps(fused))):
            assert torch.equal(other(x)[0], expected)


@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('change', ['in place', 'load', 'another tensor'])
def test_weights_that_change_are_used(change, quantized):
    """They were packed in the first call."""
    layer = FusedAdderConv2d(AdderConv2d(4, 6, 3).eval())
    if quantized:
        layer = QuantizedAdderConv2d(layer, -4, 4)
    x = torch.rand(2, 4, 7, 5)
    before, flipped = layer(x), layer.weight.flip(0)
    if change == 'in place':
        layer.weight.copy_(flipped)
    elif change == 'load':
        layer.load_state_dict(dict(layer.state_dict(), weight=flipped))
    else:
        layer.weight = flipped
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))
    assert not torch.equal(layer(x), before)


@pytest.mark.parametrize('model, message', [
    (nn.Sequential(AdderConv2d(2, 2, 1)), 'model.eval'),
    (nn.Sequential(nn.Conv2d(2, 2, 1)).eval(), 'has no AdderConv2d'),
])
def test_errors(model, message):
    with pytest.raises(InputError, match=message):
        fuse_adder_bn(model)


class Doubled(nn.BatchNorm2d):
    """Another forward than its base class, as SparK's norms have."""

    def forward(self, x):
        return 2 * super().forward(x)


class DoubledConvModule(ConvModule):

    def forward(self, x):
        return 2 * super().forward(x)


class DoubledSequential(nn.Sequential):

    def forward(self, x):
        return 2 * super().forward(x)


class Slope(nn.ReLU):

    def forward(self, x):
        return torch.maximum(x, 0.1 * x)


class DoubledAdder(AdderConv2d):

    def forward(self, x):
        return 2 * super().forward(x)


class DoubledBlock(BasicBlock):

    def forward(self, x):
        return 2 * super().forward(x)


class Half(nn.Module):
    """In place of a DropPath."""

    def forward(self, x):
        return x / 2


def hooked(module):
    module.register_forward_hook(lambda module, inputs, output: 2 * output)
    return module


def pre_hooked(module):
    module.register_forward_pre_hook(lambda module, inputs: 2 * inputs[0])
    return module


def patched(module):
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)
    return module


def residual_block(**parts):
    block = BasicBlock(6, 6, conv_cfg=AWN)
    for name, part in parts.items():
        setattr(block, name, part)
    return block


def adder():
    return AdderConv2d(6, 6, 3, padding=1, weight_norm='AWN')


def conv_module(kind=ConvModule):
    return kind(6, 6, 3, padding=1, conv_cfg=AWN, norm_cfg=dict(type='BN'))


OTHERS = dict(
    norm=lambda: nn.Sequential(adder(), Doubled(6)),
    relu=lambda: nn.Sequential(adder(), nn.BatchNorm2d(6), Slope()),
    adder=lambda: nn.Sequential(
        DoubledAdder(6, 6, 3, padding=1), nn.BatchNorm2d(6)),
    conv_module=lambda: conv_module(DoubledConvModule),
    sequential=lambda: DoubledSequential(adder(), nn.BatchNorm2d(6)),
    block=lambda: DoubledBlock(6, 6, conv_cfg=AWN),
    norm_of_block=lambda: residual_block(bn2=Doubled(6)),
    relu_of_block=lambda: residual_block(relu=Slope()),
    drop_path_of_block=lambda: residual_block(drop_path=Half()),
    downsample_of_block=lambda: residual_block(
        downsample=DoubledSequential(adder(), nn.BatchNorm2d(6))),
    hooked_adder=lambda: hooked(adder()),
    hooked_norm=lambda: nn.Sequential(adder(), hooked(nn.BatchNorm2d(6))),
    hooked_conv_module=lambda: hooked(conv_module()),
    hooked_block=lambda: hooked(residual_block()),
    hooked_adder_of_block=lambda: residual_block(conv1=hooked(adder())),
    hooked_drop_path=lambda: residual_block(drop_path=hooked(nn.Identity())),
    pre_hooked_adder=lambda: pre_hooked(adder()),
    pre_hooked_block=lambda: pre_hooked(residual_block()),
    patched_conv_module=lambda: patched(conv_module()),
)


@pytest.mark.parametrize('name', OTHERS)
def test_what_computes_something_else_stays(name):
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, 9)
    model = settle(nn.Sequential(OTHERS[name](), conv_module()), x)
    fused = fuse_adder_bn(model)
    assert count(fused, FusedAdderConv2d) >= 1
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5


def test_layers_of_a_sequential_keep_names_and_class():
    """Code outside may find them by name, or ask for more than forward."""
    x = torch.randn(2, 6, 9, 9)
    model = settle(Sequential(OrderedDict(
        first=adder(), norm=nn.BatchNorm2d(6), act=nn.ReLU(inplace=True),
        second=adder())), x)
    fused = fuse_adder_bn(model)
    assert type(fused) is Sequential
    assert [name for name, _ in fused.named_children()] == [
        'first', 'norm', 'act', 'second']
    assert count(fused, FusedAdderConv2d) == 2
    assert count(fused, nn.BatchNorm2d) == 0
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5


def test_shared_modules():
    """A head may share its adders between levels that have own norms."""
    class Shared(nn.Module):

        def __init__(self):
            super().__init__()
            layer = adder()
            self.first, self.second = layer, layer
            self.levels = nn.ModuleList(
                nn.Sequential(layer, nn.BatchNorm2d(6)) for _ in range(2))

        def forward(self, x):
            return self.second(self.levels[1](self.levels[0](self.first(x))))

    x = torch.randn(2, 6, 9, 9)
    model = settle(Shared(), x)
    fused = fuse_adder_bn(model)
    assert count(fused, AdderConv2d) == 0
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) < 1e-5


def test_a_norm_in_training_mode_is_refused():
    """It would normalize by the batch, which no fused adder can."""
    model = nn.Sequential(adder(), nn.BatchNorm2d(6)).eval()
    model[1].train()
    with pytest.raises(InputError, match='fuse_adder_bn: model.1 .BatchNorm2d'
                       '. is in training mode'):
        fuse_adder_bn(model)


@pytest.mark.parametrize('depth', [18, 50])
def test_under_autocast(depth):
    """The stem gives half precision, to the first block as its residual."""
    x = torch.rand(2, 3, 64, 64)
    model = settle(AdderResNet(depth, base_channels=8, stem_channels=8), x)
    fused = fuse_adder_bn(model)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        (output, ), (expected, ) = fused(x), model(x)
    assert relative_error(output.float(), expected.double()) < 0.05
