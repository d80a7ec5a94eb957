"""Fuse adders with what follows them, for inference.

A batch norm cannot be folded into the weight of an adder, which is not
linear, but it can be part of the kernel that writes the adder's output. So
can the shortcut of a residual block and its ReLU. Weight normalization (AWN)
folds into the weight for good.
"""
import copy
from typing import Self

import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import DropPath
from mmdet.models.backbones import resnet as mmdet_resnet
from mmdet.models.backbones import resnext as mmdet_resnext
from mmengine.model import Sequential
from mmpretrain.models.backbones import resnet, resnext
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d, find_adders, require_adders
from mmadder.models.necks.adder_fpn import ShortcutConvModule
from mmadder.ops import adder_conv2d, pack_weight
from mmadder.ops.adder_conv2d import KERNEL_DEVICES

# A subclass may have another forward (SEResNet, Res2Net) or a second one
# (DetectoRS): only these very classes are replaced as a whole.
BLOCKS = (resnet.BasicBlock, resnet.Bottleneck, resnext.Bottleneck,
          mmdet_resnet.BasicBlock, mmdet_resnet.Bottleneck,
          mmdet_resnext.Bottleneck)
CONV_MODULES = (ConvModule, ShortcutConvModule)
SEQUENTIALS = (nn.Sequential, Sequential)

# torch 2.6 has only the wider one.
is_exporting = getattr(
    torch.compiler, 'is_exporting', torch.compiler.is_compiling)


def count_writes(tensor: Tensor) -> int:
    """Return how often a tensor was written to; inference tensors: 0."""
    return 0 if tensor.is_inference() else tensor._version


def fuse_adder_bn(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose adders are fused with their norms.

    Fused are, wherever they occur: an adder and its batch norm in mmcv's
    ConvModule, in a Sequential and in the residual blocks of MMPretrain's and
    MMDetection's ResNets and ResNeXts, with ReLU and shortcut. All other
    adders keep the norm that follows, but have their weight norm folded in
    too. Classes derived from these, which may compute something else, and
    modules with forward hooks stay; their children are fused. Outputs are the
    model's up to rounding (about 1e-6 of their largest).

    The copy is for inference: it has no gradients, and ``train()`` raises an
    error. The model itself stays as it is and can be trained further. In
    float32 the copy runs the fused kernels of CPU or GPU with cached weights;
    in other dtypes it computes the same step by step.

    Args:
        model: in evaluation mode, all of it.

    Raises:
        InputError: a module is in training mode, there are no adders, or
            they are partly convolutions still.

    Example:
        >>> model = AdderResNet(18).eval()
        >>> features, = fuse_adder_bn(model)(torch.rand(1, 3, 64, 64))
    """
    require_eval(model, 'fuse_adder_bn')
    if not find_adders(model):
        raise InputError(f'fuse_adder_bn: model ({type(model).__name__}) has '
                         'no AdderConv2d, or was fused before')
    require_adders(model, 'fuse_adder_bn')
    fused = _fused(copy.deepcopy(model)).requires_grad_(False)
    fused.eval()  # does not return the model in MMPretrain's backbones
    return fused


class FusedAdderConv2d(nn.Module):
    """Adder, batch norm, shortcut and ReLU in one step of inference.

    Args:
        conv: its weight is taken after its weight norm.
        norm: what follows, in evaluation mode.
        relu: end with a ReLU.
    Input:
        (N, in_channels, H, W); ``residual``, shaped like the output, is
        added before the ReLU.
    Returns:
        (N, out_channels, H_out, W_out), input's dtype.
    Raises:
        RuntimeError: a gradient is asked for, or training mode.
    """

    def __init__(self, conv: AdderConv2d, norm: _BatchNorm | None = None,
                 relu: bool = False):
        super().__init__()
        self.relu = relu
        self.geometry = (conv.stride, conv.padding, conv.dilation,
                         conv.groups)
        self.mode, self.center = conv.mode, conv.center
        weight = conv.normalized_weight.detach().clone()
        self.register_buffer('weight', weight)
        for name, value in zip(('mean', 'scale', 'bias'),
                               _epilogue(conv, norm)):
            self.register_buffer(name, value.to(weight))
        self._packed = None
        super().train(False)

    def forward(self, input: Tensor,
                residual: Tensor | None = None) -> Tensor:
        self._require_no_grad(input)
        if (input.device.type in KERNEL_DEVICES
                and input.dtype == torch.float32):
            if residual is not None:  # of autocast's, half
                residual = residual.to(input.dtype)
            return self._fast(input, residual)
        return self._composed(
            input, self.weight.to(input.dtype), 1, residual)

    def _fast(self, input, residual):
        return torch.ops.mmadder.adder_conv2d_fused(
            input, self.weight, self._packed_weight(), self.mean, self.scale,
            self.bias, residual, self.relu, *self.geometry, self.mode,
            self.center)

    def _packed_weight(self):
        """The weight as the kernels of its device read it."""
        if is_exporting():  # for any processor: the graph packs it
            return pack_weight(self.weight, self.geometry[-1])
        weight, packed = self.weight, self._packed
        if (packed is None or packed[0] is not weight
                or packed[1] != count_writes(weight)):
            packed = (weight, count_writes(weight),
                      pack_weight(weight, self.geometry[-1]))
            self._packed = packed
        return packed[2]

    def _composed(self, input, weight, factor, residual):
        """Step by step, in any dtype; ``factor`` times the distance."""
        output = factor * adder_conv2d(
            input, weight, None, *self.geometry, mode=self.mode,
            center=self.center)
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

    def train(self, mode: bool = True) -> Self:
        if mode:
            raise RuntimeError('a fused model cannot be trained: train the '
                               'model that was given to fuse_adder_bn, and '
                               'fuse again')
        return super().train(mode)

    def _load_from_state_dict(self, *args, **kwargs):
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self):  # another process may have other kernels
        return dict(self.__dict__, _packed=None)

    def extra_repr(self) -> str:
        stride, padding, dilation, groups = self.geometry
        return (f'{tuple(self.weight.shape)}, stride={stride}, '
                f'padding={padding}, dilation={dilation}, groups={groups}, '
                f'relu={self.relu}, mode={self.mode!r}, center={self.center}')


class FusedShortcutConv2d(FusedAdderConv2d):
    """The same with its input as residual."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input, input)


class FusedBlock(nn.Module):
    """A residual block of fused adders.

    Args:
        block: one of ``BLOCKS``.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(
            FusedAdderConv2d(conv, norm, relu=True)
            for conv, norm in _layers(block))
        self.downsample = (
            None if block.downsample is None else _fused(block.downsample))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.layers[-1](x, identity)


def _epilogue(conv, norm):
    """(mean, scale, bias), float64, of what follows an adder."""
    shape = dict(size=(conv.out_channels, ), dtype=torch.float64,
                 device=conv.weight.device)
    mean, scale, bias = (torch.full(fill_value=v, **shape) for v in (0, 1, 0))
    if norm is not None:
        mean = norm.running_mean.double()
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.detach().double()
            bias = norm.bias.detach().double()
    if conv.bias is not None:
        mean = mean - conv.bias.detach().double()
    return mean, scale, bias


def folded_convolution(module: nn.Module, norm: _BatchNorm | None
                       ) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of a convolution with its batch norm in it.

    Args:
        module: convolution or linear layer; the latter gets a 1x1 kernel.
        norm: what follows, in evaluation mode.
    """
    weight, bias, mean, variance, scale, shift = (
        None if tensor is None else tensor.detach().double()
        for tensor in (module.weight, module.bias, *(
            (None, ) * 4 if norm is None else
            (norm.running_mean, norm.running_var, norm.weight, norm.bias))))
    if weight.dim() == 2:
        weight = weight[:, :, None, None]
    if norm is not None:
        weight, bias = fuse_conv_bn_weights(
            weight, bias, mean, variance, norm.eps, scale, shift)
    elif bias is None:
        bias = weight.new_zeros(len(weight))
    return weight.detach(), bias.detach()


def require_eval(model: nn.Module, function: str) -> None:
    """Raise InputError if a module is in training mode."""
    for name, module in model.named_modules(prefix='model'):
        if module.training:
            raise InputError(
                f'{function}: {name} ({type(module).__name__}) is in '
                'training mode, in which norms use the batch; call '
                'model.eval() first')


def is_plain(module):
    """Whether its class says all that a module computes."""
    return not (module._forward_hooks or module._forward_pre_hooks
                or 'forward' in vars(module))


def _computes_as(module, *kinds):
    return is_plain(module) and type(module).forward in [
        kind.forward for kind in kinds]


def _is_fusable(conv, norm):
    return (type(conv) is AdderConv2d and is_plain(conv)
            and _computes_as(norm, _BatchNorm, nn.SyncBatchNorm)
            and norm.running_mean is not None)


def _layers(block):
    """Pairs of convolution and norm of a residual block."""
    numbers = range(1, 4 if hasattr(block, 'conv3') else 3)
    return [(getattr(block, f'conv{i}'), getattr(block, f'norm{i}'))
            for i in numbers]


def _fused(module):
    """Return what replaces a module: itself, if only its children change."""
    replacement = _replacement(module)
    if replacement is not None:
        return replacement
    # Not named_children(), which names a module once that occurs twice.
    for name, child in list(module._modules.items()):
        if child is not None:
            setattr(module, name, _fused(child))
    return module


def _replacement(module):
    """Return what a module becomes as a whole, or None."""
    if not is_plain(module):
        return None
    if type(module) is AdderConv2d:
        return FusedAdderConv2d(module)
    if type(module) in CONV_MODULES:
        return _fuse_conv_module(module)
    if type(module) in BLOCKS:
        return _fuse_block(module)
    if type(module) in SEQUENTIALS:
        _fuse_neighbours(module)
    return None


def _fuse_conv_module(module):
    if (not module.with_norm or not _is_fusable(module.conv, module.norm)
            or module.with_explicit_padding
            or module.order[:2] != ('conv', 'norm')):
        return None
    activation = module.activate if module.with_activation else None
    if type(module) is ShortcutConvModule and module.adds_input:
        if activation is not None:
            return None
        return FusedShortcutConv2d(module.conv, module.norm)
    if activation is None or _computes_as(activation, nn.ReLU):
        return FusedAdderConv2d(module.conv, module.norm,
                                relu=activation is not None)
    return nn.Sequential(
        FusedAdderConv2d(module.conv, module.norm), activation)


def _fuse_block(block):
    drop_path = getattr(block, 'drop_path', nn.Identity())
    if (all(_is_fusable(*pair) for pair in _layers(block))
            and _computes_as(block.relu, nn.ReLU)
            # No paths are dropped in evaluation mode.
            and _computes_as(drop_path, nn.Identity, DropPath)
            and not getattr(block, 'with_plugins', False)):
        return FusedBlock(block)
    return None


def _fuse_neighbours(sequential):
    """Fuse them in place; names of the layers and their number stay."""
    names, layers = list(sequential._modules), list(sequential)
    for i in range(len(layers) - 1):
        if not _is_fusable(*layers[i:i + 2]):
            continue
        relu = i + 2 < len(layers) and _computes_as(layers[i + 2], nn.ReLU)
        fused = FusedAdderConv2d(*layers[i:i + 2], relu=relu)
        setattr(sequential, names[i], fused)
        for name in names[i + 1:i + 2 + relu]:
            setattr(sequential, name, nn.Identity())
