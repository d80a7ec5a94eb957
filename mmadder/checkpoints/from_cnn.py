"""A trained convolutional network as the beginning of an adder network.

At t = 0 (see :class:`mmadder.engine.AnnealingHook`) an adder layer with
adaptive weight normalization computes conv2d(x, w), w = W / s, for any filter
W and scale s > 0 of it: the weight stores (W - m) / s, nu is the deviation of
what is stored, and upsilon = m / s, m being the filter's mean. With s its
deviation, weights get the scale that AWN keeps them at. The batch norm behind
undoes s: its tracked mean and variance become (mean - bias) / s and
variance / s^2; as its eps is not scaled with them, its weight is multiplied
by sqrt((variance + eps s^2) / (variance + eps)). In evaluation mode nothing
is lost. Not part of the paper.
"""
import copy
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d, set_adder_fraction
from mmadder.layers.adder_conv2d import FRACTION

# The scale of filters whose taps are all but equal, or zero.
LEAST_DEVIATION = 1e-3  # relative to the mean
LEAST_SCALE = 1e-8
TORCHVISION = re.compile(r'(conv1|bn1|layer[1-4]\.\d+)\.')


def named_as_ours(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the keys of torchvision's ResNet the names of MMPretrain's."""
    if 'conv1.weight' not in state_dict or 'layer1.0.conv1.weight' not in \
            state_dict:
        return state_dict
    return {(f'backbone.{key}' if TORCHVISION.match(key) else
             re.sub(r'^fc\.', 'head.fc.', key)): value
            for key, value in state_dict.items()}


def as_cnn(model: nn.Module, state_dict: dict[str, Tensor]) -> nn.Module:
    """Return a copy of a model with convolutions in place of its adders.

    Args:
        state_dict: to be loaded; says which convolutions have a bias.
    """
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, AdderConv2d):
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size,
                layer.stride, layer.padding, layer.dilation, layer.groups,
                bias=f'{name}.bias' in state_dict))
    return model


def from_cnn(original: nn.Module, model: nn.Module,
             run: Callable[[nn.Module], object]) -> dict[str, Tensor]:
    """Return the state dict with which a model computes what a CNN does.

    Args:
        original: of :func:`as_cnn`, float64, with its weights.
        model: its adders have adaptive weight normalization or none, and are
            each followed by a batch norm. They begin as convolutions from
            here on (``adder_fraction`` 0).
        run: runs a model, so that the norm behind each layer is found.
    Raises:
        InputError: an adder has weight standardization, which has no place
            for a filter's mean, or no batch norm with trained weights and
            tracked statistics behind it.
    """
    norms = _norms_behind(original, model, run)
    set_adder_fraction(model, 0)
    converted = original.state_dict()
    for name, layer in model.named_modules():
        if not isinstance(layer, AdderConv2d):
            continue
        if layer.ws is not None:
            raise InputError(
                f'weight standardization has no place for the mean of a '
                f'filter, so {name} cannot begin as a trained convolution; '
                'take a config with adaptive weight normalization')
        conv, norm_name = original.get_submodule(name), norms.get(name)
        norm = norm_name and original.get_submodule(norm_name)
        if not _undoes_scale(norm):
            raise InputError(
                f'behind {name} there is no batch norm with trained weights '
                'and tracked statistics that could take over the scale of '
                'its filters, so it cannot begin as a trained convolution')
        converted.pop(f'{name}.bias', None)
        for prefix, tensors in ((name, _convert_weight(conv, layer)),
                                (norm_name, _convert_norm(conv, layer, norm))):
            converted.update({f'{prefix}.{key}': value
                              for key, value in tensors.items()})
    return converted


def _scale(weight):
    """What each filter is divided by."""
    flat = weight.detach().flatten(1)
    deviation, mean = flat.std(1, correction=0), flat.mean(1).abs()
    scale = deviation.maximum(LEAST_DEVIATION * mean)
    return torch.where(deviation > 0, scale, mean).clamp(min=LEAST_SCALE)


def _convert_weight(conv, layer):
    weight = conv.weight.detach() / _scale(conv.weight).view(-1, 1, 1, 1)
    tensors = {FRACTION: torch.zeros((), dtype=torch.float64)}
    if layer.bias is not None:
        tensors['bias'] = torch.zeros_like(weight[:, 0, 0, 0])
    if layer.awn is not None:
        variance, mean = torch.var_mean(weight.flatten(1), 1, correction=0)
        weight = weight - mean.view(-1, 1, 1, 1)
        tensors.update({'awn.nu': (variance + layer.awn.eps).sqrt(),
                        'awn.upsilon': mean})
    return dict(tensors, weight=weight)


def _convert_norm(conv, layer, norm):
    scale, variance = _scale(conv.weight), norm.running_var
    bias = 0 if conv.bias is None else conv.bias.detach()
    return dict(
        running_mean=(norm.running_mean - bias) / scale,
        running_var=variance / scale**2,
        weight=norm.weight.detach() * (
            (variance + norm.eps * scale**2) / (variance + norm.eps)).sqrt())


def _undoes_scale(norm):
    return (isinstance(norm, _BatchNorm) and norm.affine
            and norm.running_mean is not None)


def _norms_behind(original, model, run):
    """{name of an adder: name of the layer that takes its output}."""
    owners, norms = {}, {}

    def gives(name):
        def after(module, inputs, output):
            owners[id(output)] = name, output  # kept, so that ids stay apart
        return after

    def takes(name):
        def before(module, inputs):
            owner, _ = owners.pop(id(inputs[0]), (None, None))
            norms.setdefault(owner, name)
        return before

    adders = {name for name, layer in model.named_modules()
              if isinstance(layer, AdderConv2d)}
    handles = [
        module.register_forward_hook(gives(name)) if name in adders
        else module.register_forward_pre_hook(takes(name))
        for name, module in original.named_modules()
        if name in adders or isinstance(module, _BatchNorm)]
    try:
        run(original)
    finally:
        for handle in handles:
            handle.remove()
    return norms
