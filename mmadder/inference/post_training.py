"""8-bit post-training quantization of adders.

A distance of codes is a distance of values only if both have one scale, so
each layer's input and weight share it: value = scale * (code - zero_point).
Sums of \\|x - w\\| are then exact integers (32 bits), times the scale.

Inputs alone set the range. Where a weight lies beyond the coded range, to
which inputs are clipped, \\|x - w\\| = \\|x - edge\\| + \\|edge - w\\|: the
second term is a constant of the filter, and nothing is lost.
"""
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmadder.errors import InputError

from .fusion import FusedAdderConv2d, FusedShortcutConv2d, fuse_adder_bn

CODES = 255  # the largest code
BINS = 2048  # of the histogram of a layer's inputs
CANDIDATES = 64  # clipping ranges that are tried


class QuantizedAdderConv2d(FusedAdderConv2d):
    """A fused adder that computes with 8-bit codes on the CPU.

    Elsewhere it computes the same distances in float. Buffers: ``weight``
    uint8, ``code_scale`` and ``zero_point`` of input and weight alike, and
    the fused epilogue in float32, whose ``mean`` makes up for weights beyond
    the range.

    Args:
        layer: float layer.
        low, high: range of values that codes are for, around zero; inputs
            beyond it are clipped.
    """

    def __init__(self, layer: FusedAdderConv2d, low: float, high: float):
        nn.Module.__init__(self)
        self.relu, self.geometry = layer.relu, layer.geometry
        self.mode, self.center = layer.mode, layer.center
        self._packed = None
        scale, zero_point = code_scale(low, high)
        zero_point = torch.tensor(zero_point)
        scale = torch.tensor(scale, dtype=torch.float32)
        # Numbers beside the buffers: torch.export cannot trace item().
        self._numbers = scale.item(), zero_point.item()
        self.register_buffer('code_scale', scale.to(layer.weight.device))
        self.register_buffer('zero_point', zero_point.to(layer.weight.device))
        self.register_buffer('weight', self.to_codes(layer.weight))
        for name in ('mean', 'scale', 'bias'):
            self.register_buffer(name, getattr(layer, name).clone())
        excess = excess_distance(
            layer.weight, *self._numbers, CODES,
            self.geometry[-1] if self.center else None)
        self.mean += excess.to(self.mean)
        self.training = False

    def to_codes(self, values: Tensor) -> Tensor:
        """Return the codes of float values, uint8; half rounds to even."""
        scale, zero_point = self._numbers
        codes = (values.float() * (1 / scale)).round() + zero_point
        return codes.clamp(0, CODES).to(torch.uint8)

    def forward(self, input: Tensor,
                residual: Tensor | None = None) -> Tensor:
        self._require_no_grad(input)
        compute = (self._integers if input.device.type == 'cpu'
                   else self._floats)
        return compute(input, residual).to(input.dtype)

    def _integers(self, input, residual):
        epilogue = [value if value is None else value.float()
                    for value in (self.mean, self.scale, self.bias, residual)]
        return torch.ops.mmadder.adder_conv2d_int8(
            input.float(), self.weight, self._packed_weight(), *self._numbers,
            *epilogue, self.relu, *self.geometry, self.center)

    def _floats(self, input, residual):
        """The same: 8-bit codes and their differences are exact in float."""
        scale, zero_point = self._numbers
        return self._composed(
            self.to_codes(input).float() - zero_point,
            self.weight.float() - zero_point, scale, residual)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._numbers = self.code_scale.item(), self.zero_point.item()

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, 8 bits'


class QuantizedShortcutConv2d(QuantizedAdderConv2d):
    """The same with its input as residual."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input, input)


class Histogram:
    """Of values over a growing range, on the CPU."""

    def __init__(self):
        self.low = self.high = None

    def add(self, input: Tensor) -> None:
        """Add a tensor's values."""
        if not input.numel():
            return
        input = input.float()
        low, high = (value.item() for value in input.aminmax())
        if self.low is None:
            self.low, self.high = low, max(high, low + 1e-8)
            self.counts = torch.zeros(BINS)
        elif low < self.low or high > self.high:
            self._widen(min(low, self.low), max(high, self.high))
        self.counts += input.histc(BINS, self.low, self.high).cpu()

    def merge(self, other: 'Histogram') -> None:
        """Add the values of another one."""
        if other.low is None:
            return
        if self.low is None:
            self.low, self.high = other.low, other.high
            self.counts = torch.zeros(BINS)
        self._widen(min(other.low, self.low), max(other.high, self.high))
        self._add_counts(other.centres(), other.counts)

    def centres(self) -> Tensor:
        """The middle of each bin."""
        width = (self.high - self.low) / BINS
        return self.low + width * (torch.arange(BINS) + 0.5)

    def _widen(self, low, high):
        old, counts = self.centres(), self.counts
        self.low, self.high = low, high
        self.counts = torch.zeros(BINS)
        self._add_counts(old, counts)

    def _add_counts(self, values, counts):
        index = ((values - self.low) / (self.high - self.low) * BINS).long()
        self.counts.index_add_(0, index.clamp(0, BINS - 1), counts)


def quantize(model: nn.Module, loader: Iterable, batches: int | None = None,
             progress: bool = True) -> nn.Module:
    """Return an 8-bit copy of a model, calibrated on data.

    The copy is fused (:func:`mmadder.inference.fuse_adder_bn`), then runs
    over the loader in float while each adder records its inputs, and each
    adder gets the range of codes with the smallest mean squared error of
    input and weight together; weights beyond it cost nothing. Stem,
    classifier and detection heads stay in float. It gives predictions as
    ``model`` does.

    Args:
        model: a classifier or detector in evaluation mode, not fused.
        loader: batches for the model's ``test_step``, such as a runner's
            validation loader; 100 pictures are enough.
        batches: stop after so many.
        progress: show a bar.

    Raises:
        InputError: training mode, no adders, an empty loader, or an input
            that is not finite; the message names the layer.
    """
    model = fuse_adder_bn(model)
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, FusedAdderConv2d)}
    observers = _observe(model, layers, loader, batches, progress)
    for name, layer in layers.items():
        _replace(model, name, layer,
                 best_range(observers[name], [layer.weight]))
    return model


def empty_quantized(model: nn.Module) -> nn.Module:
    """Return the structure of :func:`quantize`, to load a state dict into.

    Args:
        model: built from the config, not fused; put into evaluation mode.

    Returns:
        A quantized copy whose codes mean nothing yet.
    """
    model.eval()
    model = fuse_adder_bn(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, FusedAdderConv2d):
            _replace(model, name, layer, (0., 1.))
    return model


def _replace(model, name, layer, bounds):
    kind = (QuantizedShortcutConv2d if isinstance(layer, FusedShortcutConv2d)
            else QuantizedAdderConv2d)
    parent, _, child = name.rpartition('.')
    setattr(model.get_submodule(parent), child, kind(layer, *bounds))


def _observe(model, layers, loader, batches, progress):
    """Run the loader and return {name: observer of the layer's inputs}."""
    observers = {name: Histogram() for name in layers}

    def hook(name):
        def record(module, inputs):
            if not inputs[0].isfinite().all():
                raise InputError(f'quantize: the input of {name} has values '
                                 'that are not finite')
            observers[name].add(inputs[0])
        return record

    handles = [layer.register_forward_pre_hook(hook(name))
               for name, layer in layers.items()]
    count = 0
    try:
        with torch.no_grad():
            for batch in tqdm(loader, 'calibration', total=batches,
                              disable=None if progress else True):
                model.test_step(batch)
                count += 1
                if count == batches:
                    break
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise InputError('quantize: the loader gave no batch to calibrate '
                           'with')
    return observers


def best_range(histogram: Histogram, weights: Sequence[Tensor],
               highest: int = CODES) -> tuple[float, float]:
    """The range of values with the smallest error of inputs and weights.

    Candidates shrink the inputs' whole range towards zero, which stays
    inside, as it is the padding. Clipping counts as an error of inputs, but
    not of weights. Errors are means, so that inputs and each weight count the
    same.

    Args:
        histogram: of the inputs; empty if there were none.
        weights: of the adders that read these inputs.
        highest: code.
    """
    weights = [weight.flatten().float().cpu() for weight in weights]
    if histogram.low is None:  # the layer never ran
        for weight in weights or [torch.tensor([0., 1.])]:
            histogram.add(weight)
    inputs, share = histogram.centres(), histogram.counts
    share = share / share.sum()
    low, high = min(histogram.low, 0.), max(histogram.high, 0.)
    best, best_error = (low, high), float('inf')
    for step in range(CANDIDATES):
        factor = 1 - step / (CANDIDATES + 1)
        for bounds in ((low * factor, high * factor), (low, high * factor)):
            error = (_rounding_error(inputs, *bounds, highest) * share).sum()
            for weight in weights:
                inside = weight.clamp(*bounds)
                error += _rounding_error(inside, *bounds, highest).mean()
            if error.item() < best_error:
                best, best_error = bounds, error.item()
    return best


def code_scale(low: float, high: float,
               highest: int = CODES) -> tuple[float, int]:
    """Scale and zero point of codes for a range of values around zero."""
    scale = max(high - low, 1e-8) / highest
    return scale, round(min(max(-low / scale, 0), highest))


def excess_distance(weight: Tensor, scale: float, zero_point: int,
                    highest: int, groups: int | None = None) -> Tensor:
    """How much farther filters are than clamped to the codes' range.

    Args:
        weight: (C_out, C_in, kh, kw).
        scale, zero_point, highest: of the codes.
        groups: whose mean is subtracted from each filter's, of a centered
            layer.
    Returns:
        (C_out,), float64.
    """
    weight = weight.double()
    edges = scale * -zero_point, scale * (highest - zero_point)
    excess = (weight - weight.clamp(*edges)).abs().sum((1, 2, 3))
    if groups is not None:
        excess = excess.view(groups, -1)
        excess = (excess - excess.mean(1, keepdim=True)).flatten()
    return excess


def _rounding_error(values, low, high, highest):
    scale, zero_point = code_scale(low, high, highest)
    codes = ((values / scale).round() + zero_point).clamp(0, highest)
    return ((codes - zero_point) * scale - values).square()
