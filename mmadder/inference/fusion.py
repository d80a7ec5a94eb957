"""Fuse adders with what follows them, for inference.

A batch norm cannot be folded into the weight of an adder, which is not
linear, but it can be part of the kernel that writes the adder's output. So
can the shortcut of a residual block and its ReLU. Weight normalization (AWN)
folds into the weight for good.
"""
import copy

import mmdet.models.backbones.resnet as mmdet_resnet
import mmpretrain.models.backbones.resnet as mmpretrain_resnet
import torch
from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.layers import AdderConv2d
from mmadder.models.necks.adder_fpn import ShortcutConvModule
from mmadder.ops import adder_conv2d, pack_weight

BLOCKS = tuple(getattr(module, name)
               for module in (mmpretrain_resnet, mmdet_resnet)
               for name in ('BasicBlock', 'Bottleneck'))


def fuse_adder_bn(model):
    """Return a copy of a model whose adders are fused with their norms.

    Fused are, wherever they occur: an adder and its batch norm in mmcv's
    ConvModule, in a Sequential and in the residual blocks of MMPretrain and
    MMDetection, with ReLU and shortcut. All other adders keep the norm that
    follows, but have their weight norm folded in too. Outputs are the
    model's up to rounding (about 1e-6 of their largest).

    The copy is for inference: it has no gradients, and ``train()`` raises an
    error. The model itself stays as it is and can be trained further. On the
    CPU in float32 the copy runs the fused kernels with cached weights;
    elsewhere it computes the same step by step.

    Args:
        model (nn.Module): in evaluation mode.

    Returns:
        nn.Module

    Raises:
        RuntimeError: the model is in training mode or has no adders.

    Example:
        >>> model = AdderResNet(18)
        >>> model.eval()
        >>> with torch.no_grad():
        ...     features, = fuse_adder_bn(model)(torch.rand(1, 3, 64, 64))
    """
    if model.training:
        raise RuntimeError('fuse_adder_bn: the model is in training mode, in '
                           'which batch norms use the batch; call '
                           'model.eval() first')
    if not any(isinstance(m, AdderConv2d) for m in model.modules()):
        raise RuntimeError(f'fuse_adder_bn: {type(model).__name__} has no '
                           'AdderConv2d, or was fused before')
    fused = copy.deepcopy(model)
    root = nn.ModuleDict(dict(model=fused))
    _fuse_children(root)
    root.eval()
    return root['model']


class FusedAdderConv2d(nn.Module):
    """Adder, batch norm, shortcut and ReLU in one step of inference.

    Args:
        conv (AdderConv2d): its weight is taken after its weight norm.
        norm (_BatchNorm, optional): what follows, in evaluation mode.
        relu (bool): end with a ReLU.
    Input:
        (N, in_channels, H, W); ``residual``, shaped like the output, is
        added before the ReLU.
    Returns:
        Tensor: (N, out_channels, H_out, W_out), input's dtype.
    Raises:
        RuntimeError: a gradient is asked for, or training mode.
    """

    def __init__(self, conv, norm=None, relu=False):
        super().__init__()
        self.relu = relu
        self.geometry = (conv.stride, conv.padding, conv.dilation,
                         conv.groups)
        self.mode = conv.mode
        weight = conv.normalized_weight.detach().clone()
        self.register_buffer('weight', weight)
        for name, value in zip(('mean', 'scale', 'bias'),
                               _epilogue(conv, norm)):
            self.register_buffer(name, value.to(weight))
        self._packed = None
        super().train(False)

    def forward(self, input, residual=None):
        self._require_no_grad(input)
        if input.device.type == 'cpu' and input.dtype == torch.float32:
            return self._fast(input, residual)
        return self._composed(
            input, self.weight.to(input.dtype), 1, residual)

    def _fast(self, input, residual):
        if self._packed is None:
            self._packed = pack_weight(self.weight, self.geometry[-1])
        return torch.ops.mmadder.adder_conv2d_fused(
            input, self.weight, self._packed, self.mean, self.scale,
            self.bias, residual, self.relu, *self.geometry, self.mode)

    def _composed(self, input, weight, factor, residual):
        """Step by step, on any device; ``factor`` times the distance."""
        output = factor * adder_conv2d(
            input, weight, None, *self.geometry, mode=self.mode)
        mean, scale, bias = (value.to(output.dtype).view(1, -1, 1, 1) for
                             value in (self.mean, self.scale, self.bias))
        output = (output - mean) * scale + bias
        output = output if residual is None else output + residual
        return output.relu() if self.relu else output

    def _require_no_grad(self, input):
        if torch.is_grad_enabled() and input.requires_grad:
            raise RuntimeError(
                'a fused adder has no gradient: use the model from before '
                'fuse_adder_bn, or torch.no_grad()')

    def train(self, mode=True):
        if mode:
            raise RuntimeError('a fused model cannot be trained: train the '
                               'model that was given to fuse_adder_bn, and '
                               'fuse again')
        return super().train(mode)

    def _apply(self, fn, recurse=True):  # to another device or dtype
        self._packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self):  # another process may have other kernels
        return dict(self.__dict__, _packed=None)

    def extra_repr(self):
        stride, padding, dilation, groups = self.geometry
        return (f'{tuple(self.weight.shape)}, stride={stride}, '
                f'padding={padding}, dilation={dilation}, groups={groups}, '
                f'relu={self.relu}, mode={self.mode!r}')


class FusedShortcutConv2d(FusedAdderConv2d):
    """The same with its input as residual."""

    def forward(self, input):
        return super().forward(input, input)


class FusedBlock(nn.Module):
    """A residual block of fused adders.

    Args:
        block (nn.Module): BasicBlock or Bottleneck.
        downsample (nn.Module, optional): of the shortcut.
    """

    def __init__(self, block, downsample):
        super().__init__()
        self.layers = nn.ModuleList(
            FusedAdderConv2d(conv, norm, relu=True)
            for conv, norm in _layers(block))
        self.downsample = downsample

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.layers[-1](x, identity)


def _epilogue(conv, norm):
    """(mean, scale, bias), float64, of what follows an adder."""
    shape = dict(size=(conv.out_channels, ), dtype=torch.float64)
    mean, scale, bias = (torch.full(fill_value=v, **shape) for v in (0, 1, 0))
    if norm is not None:
        mean = norm.running_mean.double().cpu()
        scale = (norm.running_var.double().cpu() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.detach().double().cpu()
            bias = norm.bias.detach().double().cpu()
    if conv.bias is not None:
        mean = mean - conv.bias.detach().double().cpu()
    return mean, scale, bias


def _is_fusable(conv, norm):
    return (isinstance(conv, AdderConv2d) and isinstance(norm, _BatchNorm)
            and norm.running_mean is not None)


def _layers(block):
    """Pairs of convolution and norm of a residual block."""
    numbers = range(1, 4 if hasattr(block, 'conv3') else 3)
    return [(getattr(block, f'conv{i}'), getattr(block, f'norm{i}'))
            for i in numbers]


def _fuse_children(module):
    for name, child in module.named_children():
        fused = _fuse(child)
        if fused is None:
            _fuse_children(child)
        else:
            setattr(module, name, fused)


def _fuse(module):
    """Return what replaces a module, or None to look inside it."""
    if isinstance(module, AdderConv2d):
        return FusedAdderConv2d(module)
    if isinstance(module, ConvModule):
        return _fuse_conv_module(module)
    if isinstance(module, BLOCKS):
        return _fuse_block(module)
    if type(module) is nn.Sequential:
        return _fuse_sequential(module)
    return None


def _fuse_conv_module(module):
    if (not module.with_norm or not _is_fusable(module.conv, module.norm)
            or module.with_explicit_padding or module.order[0] != 'conv'
            or module.order[1] != 'norm'):
        return None
    activation = module.activate if module.with_activation else None
    if isinstance(module, ShortcutConvModule):
        if activation is not None:
            return None
        return FusedShortcutConv2d(module.conv, module.norm)
    if activation is None or isinstance(activation, nn.ReLU):
        return FusedAdderConv2d(module.conv, module.norm,
                                relu=activation is not None)
    return nn.Sequential(
        FusedAdderConv2d(module.conv, module.norm), activation)


def _fuse_block(block):
    if (not all(_is_fusable(*pair) for pair in _layers(block))
            or not isinstance(block.relu, nn.ReLU)
            or getattr(block, 'with_plugins', False)):
        return None
    downsample = block.downsample
    if downsample is not None:
        downsample = _fuse(downsample) or downsample
    return FusedBlock(block, downsample)


def _fuse_sequential(module):
    """Fuse neighbours; positions and their number stay."""
    layers = list(module)
    for i in range(len(layers) - 1):
        if not _is_fusable(*layers[i:i + 2]):
            continue
        relu = i + 2 < len(layers) and isinstance(layers[i + 2], nn.ReLU)
        layers[i] = FusedAdderConv2d(*layers[i:i + 2], relu=relu)
        layers[i + 1] = nn.Identity()
        if relu:
            layers[i + 2] = nn.Identity()
    sequential = nn.Sequential(*layers)
    _fuse_children(sequential)
    return sequential
