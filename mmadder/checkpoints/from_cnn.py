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

A norm that the file does not have, such as those of AdderFPN, begins as the
identity: its weight is sqrt(variance + eps), and its bias the mean, of what
the convolution gives. In evaluation mode any statistics will do; in training
the batch's take their place, so they are estimated from pictures. Where a
convolution without norm gets a shortcut, 1 is taken off its middle tap.
"""
import copy
import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.layers.adder_conv2d import FRACTION
from mmadder.statistics import reestimate_statistics

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


def norms_behind(model: nn.Module,
                 run: Callable[[nn.Module], object]) -> dict[str, str]:
    """Return the name of the batch norm behind each adder of a model.

    Args:
        model: its adders have adaptive weight normalization or none.
        run: runs a model.
    Raises:
        InputError: an adder has weight standardization, which has no place
            for a filter's mean, or no batch norm with trained weights and
            tracked statistics behind it.
    """
    norms = _consumers(model, run)
    for name, layer in model.named_modules():
        if not isinstance(layer, AdderConv2d):
            continue
        if layer.ws is not None:
            raise InputError(
                f'weight standardization has no place for the mean of a '
                f'filter, so {name} cannot begin as a trained convolution; '
                'take a config with adaptive weight normalization')
        if name not in norms and 'head' in name.partition('.')[0]:
            raise InputError(
                f'{name} is an adder in a head, and only those of backbone '
                'and neck can begin as trained convolutions: take '
                "conv_cfg=dict(type='AdderConv2d') out of the head's config")
        if name not in norms or not _undoes_scale(
                model.get_submodule(norms[name])):
            raise InputError(
                f'behind {name} there is no batch norm with trained weights '
                'and tracked statistics that could take over the scale of '
                'its filters, so it cannot begin as a trained convolution')
    return norms


def as_cnn(model: nn.Module, state_dict: dict[str, Tensor],
           norms: dict[str, str]) -> nn.Module:
    """Return a copy of a model with convolutions in place of its adders.

    Args:
        state_dict: to be loaded; says which convolutions have a bias and
            which a norm. Those without norm have no shortcut either.
        norms: of :func:`norms_behind`.
    """
    model = copy.deepcopy(model)
    for name, norm in norms.items():
        layer, (parent, child) = model.get_submodule(name), _split(name)
        setattr(model.get_submodule(parent), child, nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size,
            layer.stride, layer.padding, layer.dilation, layer.groups,
            bias=f'{name}.bias' in state_dict))
        if f'{name}.weight' in state_dict and not any(
                key.startswith(f'{norm}.') for key in state_dict):
            model.get_submodule(parent).adds_input = False
            parent, child = _split(norm)
            setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def with_norms(cnn: nn.Module, model: nn.Module, norms: dict[str, str],
               batches: Iterable[Tensor]) -> nn.Module:
    """Return a copy of a CNN with all norms of a model, computing the same.

    Args:
        cnn: of :func:`as_cnn`, with its weights.
        norms: of :func:`norms_behind`.
        batches: pictures, (N, 3, H, W), normalized, float32: the added norms
            track the statistics of what they see of them.
    """
    cnn, added = copy.deepcopy(cnn).eval(), []
    for name, norm in norms.items():
        if not isinstance(cnn.get_submodule(norm), nn.Identity):
            continue
        added.append(norm)
        parent, child = _split(norm)
        setattr(cnn.get_submodule(parent), child,
                copy.deepcopy(model.get_submodule(norm)).double().eval())
        parent, _ = _split(name)
        if getattr(model.get_submodule(parent), 'adds_input', False):
            cnn.get_submodule(parent).adds_input = True
            _take_off_one(cnn.get_submodule(name))
    if added:
        _begin_as_identity(cnn, added, batches)
    return cnn


def from_cnn(original: nn.Module, model: nn.Module,
             norms: dict[str, str]) -> dict[str, Tensor]:
    """Return the state dict with which a model computes what a CNN does.

    Args:
        original: of :func:`with_norms`, float64.
        model: its adders are to begin as convolutions (``adder_fraction``
            0).
        norms: of :func:`norms_behind`.
    """
    converted = original.state_dict()
    for name, norm in norms.items():
        conv, layer = (m.get_submodule(name) for m in (original, model))
        converted.pop(f'{name}.bias', None)
        for prefix, tensors in (
                (name, _convert_weight(conv, layer)),
                (norm, _convert_norm(conv, original.get_submodule(norm)))):
            converted.update({f'{prefix}.{key}': value
                              for key, value in tensors.items()})
    return converted


def _split(name):
    parent, _, child = name.rpartition('.')
    return parent, child


@torch.no_grad()
def _take_off_one(conv):
    """Let a convolution and its input make up what it gave alone."""
    height, width = conv.kernel_size
    conv.weight[:, :, height // 2, width // 2] -= torch.eye(
        conv.out_channels, dtype=conv.weight.dtype)


@torch.no_grad()
def _begin_as_identity(cnn, names, batches):
    """Give norms the statistics of their inputs, and weights to undo them."""
    single = copy.deepcopy(cnn).float()
    watching = nn.ModuleList(map(single.get_submodule, names))
    for norm in watching:
        norm.register_forward_hook(lambda module, inputs, output: inputs[0])
    reestimate_statistics(watching, batches, single.extract_feat)
    for name, seen in zip(names, watching):
        norm = cnn.get_submodule(name)
        norm.load_state_dict(seen.state_dict())
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean)


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


def _convert_norm(conv, norm):
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


def _consumers(model, run):
    """{name of an adder: name of the norm that takes its output}."""
    owners, norms = {}, {}

    def gives(name):
        def after(module, inputs, output):
            owners[id(output)] = name, output  # kept, so that ids stay apart
        return after

    def takes(name):
        def before(module, inputs):
            if id(inputs[0]) in owners:
                owner, _ = owners.pop(id(inputs[0]))
                norms.setdefault(owner, name)
        return before

    handles = [
        module.register_forward_hook(gives(name))
        if isinstance(module, AdderConv2d)
        else module.register_forward_pre_hook(takes(name))
        for name, module in model.named_modules()
        if isinstance(module, (AdderConv2d, _BatchNorm))]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    return norms
