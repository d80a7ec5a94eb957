"""From a fused model in float to the integer network.

Each map gets one range of codes, found on calibration pictures. Where a map is
read by adders, their weights have its codes too, and what a weight lies beyond
the range is a constant of its filter (mmadder.inference.post_training).
"""
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmadder.errors import InputError
from mmadder.inference.fusion import folded_convolution
from mmadder.inference.post_training import (
    Histogram,
    best_range,
    code_scale,
    excess_distance,
)
from mmadder.integer import IntegerNetwork
from mmadder.integer.network import (
    FRACTION,
    MAX_BIAS,
    MAX_RESIDUAL_MULTIPLIER,
)

from .integer_graph import IntegerGraph, Layer

PICTURE = 255  # highest code of pictures, and of maps that no adder reads
PARTS = 2**FRACTION  # of a code, that sums are counted in
LARGEST_MULTIPLIER = 2**31 - 1
LARGEST_BIAS = 2**29  # of a number that is not requantized
AVERAGE_SHIFT = 24


def calibrate(graph: IntegerGraph, batches: Iterable[Tensor],
              total: int | None = None,
              progress: bool = True) -> dict[str, Histogram]:
    """Run normalized pictures and return {map: histogram of its values}.

    Raises:
        InputError: there are no pictures, or a map is not finite.
    """
    histograms = {layer.name: Histogram() for layer in graph.layers}

    def record(name, value):
        if not value.isfinite().all():
            raise InputError(f'calibration: the output of {name} has values '
                             'that are not finite')
        histograms[name].add(value)

    empty = True
    with torch.no_grad():
        for images in tqdm(batches, 'calibration', total=total,
                           disable=None if progress else True):
            graph.run(images, record)
            empty = False
    if empty:
        raise InputError('calibration: there are no pictures')
    return histograms


def lower(graph: IntegerGraph, histograms: dict[str, Histogram], *,
          mean: Tensor, std: Tensor, bits: int = 8, shift_only: bool = False,
          size: tuple[int, int] | None = None,
          model: dict[str, Any] | None = None) -> IntegerNetwork:
    """Write a network's layers in integers.

    Args:
        graph: of the fused network.
        histograms: of :func:`calibrate`.
        mean, std: (C,), of a picture's bytes.
        bits: of the maps that adders read, and of their weights, 2 to 8; all
            other codes have 8.
        shift_only: multipliers behind adders are powers of two.
        size: (H, W) of the pictures, None: any.
        model: goes into the file as it is.

    Raises:
        InputError: a layer whose numbers leave the format's limits.
    """
    if not 2 <= bits <= 8:
        raise InputError(f'bits must be from 2 to 8, got {bits}')
    return _Lowering(graph, mean, std, bits, shift_only).network(
        histograms, size, model or {})


class _Lowering:

    def __init__(self, graph, mean, std, bits, shift_only):
        self.layers = graph.layers
        self.outputs = graph.outputs
        self.mean, self.std = mean.double(), std.double()
        self.highest = 2**bits - 1
        self.shift_only = shift_only
        self.maps, self.steps, self.arrays = {}, [], {}
        self.codes = {}  # id of a weight: its codes, of a convolution

    def network(self, histograms, size, model):
        channels = len(self.mean)
        self.maps['image'] = dict(
            type='uint8', channels=channels, scale=1., highest=PICTURE,
            zero_point=[round(v) for v in self.mean.clamp(0, 255).tolist()])
        self._choose_ranges(histograms)
        for layer in self.layers:
            getattr(self, f'_lower_{layer.kind}')(layer)
        return IntegerNetwork(dict(
            image='image', size=list(size) if size else None, maps=self.maps,
            steps=self.steps, outputs=self.outputs, model=model), self.arrays)

    # Ranges -----------------------------------------------------------------

    def _choose_ranges(self, histograms):
        """One range for a map and what is only pooled from it."""
        members = {}
        for layer in self.layers:
            root = layer.name
            if layer.kind == 'max_pool':
                root = next(key for key, group in members.items()
                            if layer.inputs[0] in group)
            members.setdefault(root, []).append(layer.name)
        readers = self._readers()
        for group in members.values():
            adders = [layer for name in group for layer in readers[name]
                      if layer.kind == 'adder' and layer.inputs[0] == name]
            # A map that is only pooled keeps what the pooling leaves.
            seen = [name for name in group if name in self.outputs.values()
                    or any(layer.kind != 'max_pool'
                           for layer in readers[name])] or group
            histogram = Histogram()
            for name in seen:
                histogram.merge(histograms[name])
            highest = self.highest if adders else PICTURE
            scale, zero_point = code_scale(*best_range(
                histogram, [layer.module.weight for layer in adders],
                highest), highest)
            channels = self._channels(group[0])
            for name in group:
                self.maps[name] = dict(
                    type='uint8', channels=channels, scale=scale,
                    zero_point=zero_point, highest=highest)

    def _readers(self):
        readers = {layer.name: [] for layer in self.layers}
        for layer in self.layers:
            for name in (*layer.inputs, layer.residual):
                if name in readers:
                    readers[name].append(layer)
        self.read = {name for name, found in readers.items() if found}
        return readers

    def _channels(self, name):
        layer = next(layer for layer in self.layers if layer.name == name)
        if layer.kind in ('adder', 'convolution'):
            return len(layer.module.weight)
        return self._channels(layer.inputs[0])

    # Layers -----------------------------------------------------------------

    def _lower_adder(self, layer):
        module, source = layer.module, self.maps[layer.inputs[0]]
        scale, zero_point, highest = (
            source[key] for key in ('scale', 'zero_point', 'highest'))
        weight = module.weight.double()
        codes = (weight / scale).round() + zero_point
        excess = excess_distance(weight, scale, zero_point, highest,
                                 1 if module.center else None)
        factor = torch.full((len(weight), ), scale, dtype=torch.float64)
        if module.center:
            factor /= len(weight)
        self._add(layer, codes.clamp(0, highest).to(torch.uint8), factor,
                  module.scale.double(), module.mean.double() + excess,
                  module.bias.double(), center=module.center)

    def _lower_convolution(self, layer):
        weight, bias = folded_convolution(layer.module, layer.norm)
        source = self.maps[layer.inputs[0]]
        if layer.inputs[0] == 'image':
            weight = weight / self.std.view(1, -1, 1, 1)
            points = torch.tensor(source['zero_point'], dtype=torch.float64)
            # Where padding is, the picture has its mean: only nearly so.
            bias = bias + (weight.sum((2, 3)) * (points - self.mean)).sum(1)
        scale = weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / 127
        is_requantized = layer.name in self.read or layer.relu
        if not is_requantized:  # a filter beside which its bias is huge
            scale = scale.maximum(
                bias.abs() / (LARGEST_BIAS * source['scale']))
        codes = (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        factor = scale * source['scale']
        if is_requantized:
            ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
            self._add(layer, codes, factor, ones, zeros, bias)
            return
        self.maps[layer.name] = dict(
            type='int32', channels=len(codes), scale=factor.tolist())
        self._put(layer, codes, (bias / factor).round())

    def _add(self, layer, codes, factor, scale, mean, bias, **fields):
        """A layer whose sums are requantized.

        Its value is (factor * sum - mean) * scale + bias.
        """
        target = self.maps[layer.name]
        per_code = PARTS / target['scale']
        wanted = factor * scale * per_code
        is_shift = self.shift_only and layer.kind == 'adder'
        multiplier, shift = _fixed_point(wanted, is_shift)
        if is_shift:  # what the power of two really is, for the mean too
            scale = multiplier / 2.**shift / (factor * per_code)
        bias = ((bias - mean * scale) * per_code).round()
        self._require(layer, bias.abs().max() <= MAX_BIAS,
                      'its values lie too far from the range of its codes')
        fields.update(shift=shift,
                      low=target['zero_point'] if layer.relu else 0)
        if layer.residual is not None:
            fields.update(
                residual=layer.residual,
                residual_multiplier=self._ratio(
                    layer, layer.residual, is_shift))
        self._array(layer, 'multiplier', multiplier, np.int32)
        self._put(layer, codes, bias, **fields)

    def _put(self, layer, codes, bias, **fields):
        fields.update(layer.geometry)
        key = id(layer.module)
        if layer.kind == 'convolution' and key in self.codes:
            fields['weight'] = self.codes[key]  # one for all levels
        else:
            self.codes[key] = f'{layer.name}/weight'
            self._array(layer, 'weight', codes, None)
        self._array(layer, 'bias', bias, np.int32)
        self._step(layer, input=layer.inputs[0], **fields)

    def _lower_max_pool(self, layer):
        self._step(layer, input=layer.inputs[0], **layer.geometry)

    def _lower_average(self, layer):
        ratio = self.maps[layer.inputs[0]]['scale'] \
            / self.maps[layer.name]['scale']
        multiplier = round(ratio * 2**AVERAGE_SHIFT)
        self._require(layer, multiplier <= LARGEST_MULTIPLIER,
                      'its range is too narrow')
        self._step(layer, input=layer.inputs[0], multiplier=multiplier,
                   shift=AVERAGE_SHIFT, low=0)

    def _lower_sum(self, layer):
        self._step(
            layer, inputs=layer.inputs,
            multipliers=[self._ratio(layer, name) for name in layer.inputs],
            low=self.maps[layer.name]['zero_point'] if layer.relu else 0)

    def _ratio(self, layer, name, power_of_two=False):
        ratio = self.maps[name]['scale'] / self.maps[layer.name]['scale']
        if power_of_two:
            ratio = 2.**round(math.log2(ratio))
        multiplier = round(ratio * PARTS)
        self._require(
            layer, multiplier <= MAX_RESIDUAL_MULTIPLIER,
            f'its range is too narrow beside that of {name}')
        return multiplier

    def _step(self, layer: Layer, **fields):
        self.steps.append(dict(kind=layer.kind, output=layer.name, **fields))

    def _array(self, layer, name, values, dtype):
        array = values.cpu().numpy()
        self.arrays[f'{layer.name}/{name}'] = (
            array if dtype is None else array.astype(dtype))

    @staticmethod
    def _require(layer, condition, message):
        if not condition:
            raise InputError(
                f'{layer.name} cannot be written in integers: {message}; '
                'calibrate with more pictures, and check that the model is '
                'trained')


def _fixed_point(wanted: Tensor, power_of_two: bool) -> tuple[Tensor, int]:
    """Multipliers and the shift that all have in common."""
    largest = max(wanted.abs().max().item(), 1e-30)
    shift = min(max(30 - math.ceil(math.log2(largest)), 1), 62)
    multiplier = wanted * 2.**shift
    if power_of_two:
        exponent = multiplier.abs().clamp(min=1).log2().round()
        multiplier = torch.where(
            multiplier.abs() < .5, 0, multiplier.sign() * 2.**exponent)
    limit = 2**30 if power_of_two else LARGEST_MULTIPLIER
    return multiplier.round().clamp(-limit, limit), shift
