"""Every block of MMPretrain and MMDetection that takes adders, fused.

A block whose forward the fusion does not know must keep it: SE layers, splits
and further inputs included.
"""
import inspect
import sys

import pytest
import torch
from mmdet.models.backbones import DetectoRS_ResNet
from mmdet.models.backbones import detectors_resnet as mmdet_detectors
from mmdet.models.backbones import res2net as mmdet_res2net
from mmdet.models.backbones import resnet as mmdet_resnet
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import MODELS
from mmpretrain.models.backbones import cspnet as mmpretrain_cspnet
from mmpretrain.models.backbones import res2net as mmpretrain_res2net
from mmpretrain.models.backbones import resnet as mmpretrain_resnet
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from settling import relative_error, settle
from torch import nn

from mmadder.inference import FusedAdderConv2d, FusedBlock, fuse_adder_bn
from mmadder.layers import AdderConv2d

AWN = dict(type='AdderConv2d', weight_norm='AWN')
PACKAGES = ('mmdet.models.backbones', 'mmdet.models.layers',
            'mmdet.models.necks', 'mmpretrain.models.backbones',
            'mmpretrain.models.utils')
BN = dict(type='BN')
SHAPE = (4, 16, 12, 12)
WIDE = (4, 64, 12, 12)


def block(*args, shapes=(SHAPE, ), fused=0, **kwargs):
    """How a class is called, its inputs, and its FusedBlocks once fused."""
    return args, kwargs, shapes, fused


BLOCKS = {
    'mmdet.backbones.csp_darknet.Focus': block(16, 24),
    'mmdet.backbones.csp_darknet.SPPBottleneck': block(16, 24),
    'mmdet.backbones.darknet.ResBlock': block(16),
    'mmdet.backbones.detectors_resnet.Bottleneck': block(16, 4),
    'mmdet.backbones.detectors_resnet.ResLayer': block(
        mmdet_detectors.Bottleneck, 16, 8, 2),
    'mmdet.backbones.detectors_resnext.Bottleneck': block(
        16, 4, groups=2, base_width=64),
    'mmdet.backbones.efficientnet.EdgeResidual': block(16, 16, 24),
    'mmdet.backbones.hrnet.HRModule': block(
        2, mmdet_resnet.BasicBlock, (1, 1), [16, 8], (16, 8), fused=2,
        shapes=(SHAPE, (4, 8, 6, 6))),
    'mmdet.backbones.res2net.Bottle2neck': block(16, 4, base_width=64),
    'mmdet.backbones.res2net.Res2Layer': block(
        mmdet_res2net.Bottle2neck, 16, 8, 2, base_width=64),
    'mmdet.backbones.resnest.Bottleneck': block(16, 4, base_width=64),
    'mmdet.backbones.resnest.SplitAttentionConv2d': block(
        16, 16, 3, padding=1),
    'mmdet.backbones.resnet.BasicBlock': block(16, 16, fused=1),
    'mmdet.backbones.resnet.Bottleneck': block(16, 4, fused=1),
    'mmdet.backbones.resnext.Bottleneck': block(
        16, 4, groups=2, base_width=64, fused=1),
    'mmdet.backbones.trident_resnet.TridentBottleneck': block(
        (1, 2, 3), -1, True, inplanes=16, planes=4),
    'mmdet.layers.conv_upsample.ConvUpsample': block(
        16, 16, norm_cfg=BN),
    'mmdet.layers.csp_layer.CSPLayer': block(16, 16),
    'mmdet.layers.csp_layer.CSPNeXtBlock': block(16, 16),
    'mmdet.layers.csp_layer.DarknetBottleneck': block(16, 16),
    'mmdet.layers.inverted_residual.InvertedResidual': block(16, 16, 32),
    'mmdet.layers.res_layer.ResLayer': block(
        mmdet_resnet.BasicBlock, 16, 8, 2, fused=2),
    'mmdet.layers.res_layer.SimplifiedBasicBlock': block(16, 16),
    'mmdet.layers.se_layer.DyReLU': block(16),
    'mmdet.layers.se_layer.SELayer': block(16),
    'mmdet.necks.ssh.SSHContextModule': block(16, 16),
    'mmdet.necks.ssh.SSHDetModule': block(16, 16),
    'mmdet.necks.yolo_neck.DetectionBlock': block(16, 16),
    'mmpretrain.backbones.cspnet.CSPStage': block(
        mmpretrain_cspnet.DarknetBottleneck, 16, 16),
    'mmpretrain.backbones.cspnet.DarknetBottleneck': block(
        16, 16, drop_path_rate=.1),
    'mmpretrain.backbones.efficientnet.EdgeResidual': block(16, 16, 24),
    'mmpretrain.backbones.efficientnet_v2.EnhancedConvModule': block(
        16, 16, 3, padding=1, has_skip=True, norm_cfg=BN),
    'mmpretrain.backbones.hrnet.HRModule': block(
        2, mmpretrain_resnet.BasicBlock, (1, 1), [16, 8], (16, 8), fused=2,
        shapes=(SHAPE, (4, 8, 6, 6))),
    'mmpretrain.backbones.inception_v3.BasicConv2d': block(
        16, 16, kernel_size=3),
    'mmpretrain.backbones.inception_v3.InceptionA': block(16, 16),
    'mmpretrain.backbones.inception_v3.InceptionAux': block(
        16, 16, shapes=((4, 16, 17, 17), )),
    'mmpretrain.backbones.inception_v3.InceptionB': block(16),
    'mmpretrain.backbones.inception_v3.InceptionC': block(16, 16),
    'mmpretrain.backbones.inception_v3.InceptionD': block(16),
    'mmpretrain.backbones.inception_v3.InceptionE': block(16),
    'mmpretrain.backbones.mobilenet_v2.InvertedResidual': block(
        16, 16, 1, 2),
    'mmpretrain.backbones.mobileone.MobileOneBlock': block(16, 16, 3, 2),
    'mmpretrain.backbones.mobilevit.MobileVitBlock': block(16, 16, 16, 16),
    'mmpretrain.backbones.repmlp.RepMLPBlock': block(
        16, 4, 4, reparam_conv_kernels=(1, 3)),
    'mmpretrain.backbones.repvgg.RepVGGBlock': block(16, 16),
    'mmpretrain.backbones.res2net.Bottle2neck': block(
        16, 16, base_width=64),
    'mmpretrain.backbones.res2net.Res2Layer': block(
        mmpretrain_res2net.Bottle2neck, 16, 32, 2, base_width=64),
    'mmpretrain.backbones.resnest.Bottleneck': block(
        16, 16, width_per_group=64),
    'mmpretrain.backbones.resnest.SplitAttentionConv2d': block(
        16, 16, 3, padding=1),
    'mmpretrain.backbones.resnet.BasicBlock': block(
        16, 16, drop_path_rate=.1, fused=1),
    'mmpretrain.backbones.resnet.Bottleneck': block(16, 16, fused=1),
    'mmpretrain.backbones.resnet.ResLayer': block(
        mmpretrain_resnet.BasicBlock, 2, 16, 8, fused=2),
    'mmpretrain.backbones.resnext.Bottleneck': block(
        64, 64, base_channels=16, groups=2, shapes=(WIDE, ), fused=1),
    'mmpretrain.backbones.seresnet.SEBottleneck': block(16, 16, se_ratio=4),
    'mmpretrain.backbones.seresnext.SEBottleneck': block(
        64, 64, base_channels=16, groups=2, se_ratio=4, shapes=(WIDE, )),
    'mmpretrain.backbones.shufflenet_v1.ShuffleUnit': block(
        24, 24, shapes=((4, 24, 12, 12), )),
    'mmpretrain.backbones.shufflenet_v2.InvertedResidual': block(16, 16),
    'mmpretrain.utils.embed.HybridEmbed': block(
        nn.Conv2d(16, 8, 3), img_size=12, in_channels=16, embed_dims=8),
    'mmpretrain.utils.embed.PatchEmbed': block(
        img_size=12, in_channels=16, embed_dims=8,
        conv_cfg=dict(AWN, kernel_size=4, stride=4)),
    'mmpretrain.utils.inverted_residual.InvertedResidual': block(16, 16, 32),
    'mmpretrain.utils.se_layer.SELayer': block(16),
}
NOT_TESTED = {
    'mmpretrain.backbones.cspnet.CSPNet':
        'a network, whose stages are CSPStage',
    'mmpretrain.backbones.levit.HybridBackbone':
        'builds ordinary convolutions, whatever conv_cfg says',
    'mmpretrain.backbones.repmlp.GlobalPerceptron':
        'no norm, and a sigmoid of distances is zero for all inputs',
}


def short_name(module, cls):
    return f"{module.replace('.models', '')}.{cls.__name__}"


def takes_conv_cfg(cls):
    """Also by keywords that a base class takes."""
    return any('conv_cfg' in inspect.signature(base.__init__).parameters
               for base in cls.__mro__[:-1])


def find_blocks():
    """{short name: class} of what no config names, but networks build of."""
    networks = {*MMDET_MODELS.module_dict.values(),
                *MMPRETRAIN_MODELS.module_dict.values()}
    return {short_name(name, cls): cls
            for name, module in list(sys.modules.items())
            if name.startswith(PACKAGES)
            for cls in vars(module).values()
            if inspect.isclass(cls) and issubclass(cls, nn.Module)
            and cls.__module__ == name and cls not in networks
            and takes_conv_cfg(cls)}


def count(model, kind):
    return sum(isinstance(module, kind) for module in model.modules())


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def check(model, make_input, tolerance=1e-5):
    """The fused model's outputs are the model's; return the fused one."""
    fused = fuse_adder_bn(model)
    assert count(fused, AdderConv2d) == 0 < count(fused, FusedAdderConv2d)
    with torch.no_grad():
        expected = tensors(model(make_input()))
        actual = tensors(fused(make_input()))
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected):
        # A picture, or the next one: else equality would say little.
        assert theirs.std(0).max() > 0.02 * theirs.abs().max()
        assert relative_error(ours, theirs) < tolerance
    return fused


def test_no_block_is_forgotten():
    assert not find_blocks().keys() - BLOCKS.keys() - NOT_TESTED.keys()


@pytest.mark.filterwarnings('ignore:The `PatchEmbed`')
@pytest.mark.filterwarnings('ignore:In MMCV v1.4.4')
@pytest.mark.parametrize('name', BLOCKS)
def test_blocks(name):
    args, kwargs, shapes, blocks = BLOCKS[name]
    torch.manual_seed(0)
    model = nn.Sequential(find_blocks()[name](
        *args, **{'conv_cfg': AWN, **kwargs}))
    for module in model.modules():
        if isinstance(module, TridentConv):  # memory as it was found
            nn.init.normal_(module.weight)
    inputs = [torch.randn(shape) for shape in shapes]

    def make_input():  # HRModule changes its list
        return list(inputs) if len(inputs) > 1 else inputs[0]

    fused = check(settle(model, make_input()), make_input)
    assert count(fused, FusedBlock) == blocks


NETWORKS = [
    dict(type='mmpretrain.SEResNet', depth=50, base_channels=16,
         stem_channels=16),
    dict(type='mmpretrain.ResNetV1d', depth=50, base_channels=8,
         stem_channels=8),
    dict(type='mmpretrain.RegNet', arch='regnetx_400mf'),
    dict(type='mmpretrain.VGG', depth=11, norm_cfg=BN, out_indices=(1, 4)),
    dict(type='mmdet.Res2Net', depth=50, base_channels=8, base_width=26,
         scales=4, norm_eval=False),
    dict(type='mmdet.DetectoRS_ResNet', depth=50, base_channels=8,
         norm_eval=False),
]


@pytest.mark.parametrize('cfg', NETWORKS, ids=lambda cfg: cfg['type'])
def test_networks(cfg):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 64, 64)
    model = settle(MODELS.build(dict(cfg, conv_cfg=AWN)), x)
    check(model, lambda: x, tolerance=1e-3)  # rounding grows with the depth


class RecursiveBackbone(nn.Module):
    """Calls a method of the blocks that is not forward, as DetectoRS does."""

    def __init__(self):
        super().__init__()
        self.backbone = DetectoRS_ResNet(
            depth=50, base_channels=8, norm_eval=False, conv_cfg=AWN,
            rfp_inplanes=4)
        for module in self.backbone.modules():
            if hasattr(module, 'rfp_conv'):
                nn.init.normal_(module.rfp_conv.weight)

    def forward(self, x, *features):
        return self.backbone.rfp_forward(x, (None, *features))


def test_second_forward_of_blocks():
    torch.manual_seed(0)
    inputs = [torch.rand(4, 3, 64, 64), torch.randn(4, 4, 8, 8),
              torch.randn(4, 4, 4, 4), torch.randn(4, 4, 2, 2)]
    model = settle(RecursiveBackbone(), *inputs)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        for ours, theirs in zip(fused(*inputs), model(*inputs)):
            assert relative_error(ours, theirs) < 1e-3
