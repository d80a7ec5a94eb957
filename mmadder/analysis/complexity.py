"""Operations, parameters and energy of a network, layer by layer.

Conventions of AdderNet (arXiv:1912.13200) and "Towards Stable and Robust
AdderNets" (NeurIPS 2021): a convolution or linear layer takes one
multiplication and one addition per tap, an adder two additions (subtract,
accumulate) and no multiplication. Centering an adder's output takes two
additions per output more, and one multiplication per position and group: the
mean's division, a shift where the filters of a group are a power of two,
which is not counted then. Biases, activations, pooling, batch norms
and weight normalization are not counted.
"""

import collections
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.layers import AWN, AdderConv2d

# Picojoules of an operation in 45 nm: Horowitz, "Computing's energy problem",
# ISSCC 2014.
ENERGY_PJ = dict(fp32=dict(multiplication=3.7, addition=0.9),
                 int8=dict(multiplication=0.2, addition=0.03))
COLUMNS = dict(
    multiplications='multiplications', additions='additions',
    parameters='parameters', energy_fp32_uJ='fp32 uJ',
    energy_int8_uJ='int8 uJ')
COUNTED = (_ConvNd, nn.Linear, AdderConv2d)
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, AWN)


def count_operations(model: nn.Module,
                     shape: Sequence[int]) -> dict[str, Any]:
    """Count what one image costs, by running the model on zeros.

    Args:
        model: a classifier of MMPretrain or a detector of
            MMDetection. A two-stage detector is counted with as many
            proposals as its ``test_cfg`` allows.
        shape: (height, width) in pixels, not padded further.
    Returns:
        'multiplications', 'additions', 'parameters' (int) and
        'energy_fp32_uJ', 'energy_int8_uJ' (float, microjoules) in total; the
        same for each part of the model under 'parts', and for each layer
        under 'layers', with 'name', 'type' and 'calls'; 'input_shape'
        (height, width), 'proposals' (int or None) and 'not_counted', the
        types of layers with weights for which there is no rule.
    """
    calls = collections.defaultdict(list)
    with _recorded(model, calls):
        proposals = _run(model, shape)
    rows = [_row(name, layer, calls[layer])
            for name, layer in model.named_modules()
            if layer in calls or _own_parameters(layer)]
    parts = collections.defaultdict(list)
    for row in rows:
        parts[row['name'].split('.')[0]].append(row)
    return dict(
        _total(rows), input_shape=list(shape), proposals=proposals,
        parts={name: _total(part) for name, part in parts.items()},
        layers=rows,
        not_counted=sorted({
            row['type'] for row, layer in zip(rows, _layers(model, rows))
            if not isinstance(layer, COUNTED + NORMS)
            and max(p.ndim for p in layer.parameters(recurse=False)) > 1}))


def energy_uj(multiplications: int, additions: int,
              arithmetic: str) -> float:
    """Microjoules of the operations; 'fp32' or 'int8'."""
    cost = ENERGY_PJ[arithmetic]
    return (multiplications * cost['multiplication']
            + additions * cost['addition']) * 1e-6


def input_shape(cfg: Config) -> tuple[int, int]:
    """Find the picture size (height, width) that a config tests with.

    It is the config's own ``input_shape``, what the last resizing or
    cropping step of the test pipeline makes, or the one of the dataset.

    Raises:
        InputError: nothing says it.
    """
    if cfg.get('input_shape'):
        return tuple(cfg.input_shape)
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    dataset = loader.get('dataset', {})
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset.datasets[0]
    for step in reversed(dataset.get('pipeline', ())):
        size = {'Resize': step.get('scale'),
                'CenterCrop': step.get('crop_size')}.get(
                    type_name(step))
        if size:
            width, height = (size, size) if isinstance(size, int) else size
            return height, width
    if 'CIFAR' in type_name(dataset):
        return 32, 32
    raise InputError('the test pipeline of the config does not say the size '
                     'of its pictures: give it as --shape HEIGHT WIDTH')


def table_of_counts(
        counts: Mapping[str, Any]) -> tuple[tuple, list[tuple]]:
    """Return header and rows: layers that work, a gap, parts and total."""
    def line(name, row):
        return (name, *(
            f'{row[key]:,}' if isinstance(row[key], int)
            else f'{row[key]:,.3f}' for key in COLUMNS))

    layers = [line(f'{row["name"]} ({row["type"]})'
                   + f' x{row["calls"]}' * (row['calls'] > 1), row)
              for row in counts['layers'] if row['calls']]
    return ('layer', *COLUMNS.values()), [
        *layers, (), *(line(*part) for part in counts['parts'].items()),
        line('total', counts)]


def _own_parameters(layer):
    return sum(p.numel() for p in layer.parameters(recurse=False))


def _layers(model, rows):
    layers = dict(model.named_modules())
    return [layers[row['name']] for row in rows]


def _row(name, layer, taps):
    total = sum(taps)
    multiplications = additions = total
    if isinstance(layer, AdderConv2d):
        multiplications, additions = 0, 2 * total
        if layer.center:
            filters = layer.out_channels // layer.groups
            outputs = total // layer.weight[0].numel()
            additions += 2 * outputs
            if filters & (filters - 1):
                multiplications = outputs // filters
    return dict(
        name=name, type=type(layer).__name__, calls=len(taps),
        **_costs(multiplications, additions, _own_parameters(layer)))


def _costs(multiplications, additions, parameters):
    return dict(
        multiplications=multiplications, additions=additions,
        parameters=parameters,
        **{f'energy_{kind}_uJ': energy_uj(multiplications, additions, kind)
           for kind in ENERGY_PJ})


def _total(rows):
    return _costs(*(sum(row[key] for row in rows) for key in (
        'multiplications', 'additions', 'parameters')))


def _taps(layer, input, output):
    """Products or distances that a call takes."""
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    size = math.prod(layer.kernel_size)
    if isinstance(layer, _ConvTransposeNd):
        return input.numel() * layer.out_channels // layer.groups * size
    return output.numel() * layer.in_channels // layer.groups * size


@contextlib.contextmanager
def _recorded(model, calls):
    """Note the taps of each call; the usual layers return zeros at once."""
    training = {layer: layer.training for layer in model.modules()}
    layers = [m for m in model.modules() if isinstance(m, COUNTED)]
    hooks = [layer.register_forward_hook(
        lambda layer, inputs, output: calls[layer].append(
            _taps(layer, inputs[0], output))) for layer in layers]
    shortened = [layer for layer in layers
                 if type(layer) in (nn.Conv2d, nn.Linear, AdderConv2d)]
    for layer in shortened:
        layer.forward = _Zeros(layer)
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in shortened:
            del layer.forward
        for layer, mode in training.items():
            layer.training = mode


class _Zeros:
    """Forward of a layer without its work: the right shape only."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, input):
        layer = self.layer
        if isinstance(layer, nn.Linear):
            return input.new_zeros(*input.shape[:-1], layer.out_features)
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in
                zip(input.shape[2:], layer.kernel_size, layer.stride,
                    layer.padding, layer.dilation)]
        return input.new_zeros(len(input), layer.out_channels, *size)


def _run(model, shape):
    """Run one image of zeros; return the number of proposals, if any."""
    image = torch.zeros(1, 3, *shape)
    if not hasattr(model, 'extract_feat'):
        model(image)
        return None
    if hasattr(model, 'head'):
        model(image, mode='tensor')
        return None
    sample = DetDataSample(metainfo=dict(
        img_id=0, img_shape=shape, ori_shape=shape, pad_shape=shape,
        batch_input_shape=shape, scale_factor=(1., 1.)))
    if not getattr(model, 'with_rpn', False) or not hasattr(
            model, 'roi_head'):
        model(image, [sample], mode='tensor')
        return None
    count = model.test_cfg.rpn.max_per_img
    with _fixed_proposals(model.rpn_head, count):
        model(image, [sample], mode='tensor')
    return count


@contextlib.contextmanager
def _fixed_proposals(rpn_head, count):
    """Let the RPN run, and return ``count`` boxes whatever it finds."""
    box = torch.tensor([[0., 0., 14., 14.]])  # pooled faster than a large one

    def predict(features, *args, **kwargs):
        rpn_head(features)
        return [InstanceData(
            bboxes=box.repeat(count, 1), scores=torch.ones(count),
            labels=torch.zeros(count, dtype=torch.long))]

    rpn_head.predict = predict
    try:
        yield
    finally:
        del rpn_head.predict
