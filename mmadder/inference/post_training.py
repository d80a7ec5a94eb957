"""8-bit post-training quantization of adders.

A distance of codes is a distance of values only if both have one scale, so
each layer's input and weight share it: value = scale * (code - zero_point).
Sums of \\|x - w\\| are then exact integers (32 bits), times the scale.
"""
import torch
from tqdm import tqdm

from mmadder.inference.fusion import (
    FusedAdderConv2d,
    FusedShortcutConv2d,
    fuse_adder_bn,
)
from mmadder.ops import pack_weight

CODES = 255  # the largest code
BINS = 2048  # of the histogram of a layer's inputs
CANDIDATES = 64  # clipping ranges that are tried


class QuantizedAdderConv2d(FusedAdderConv2d):
    """A fused adder that computes with 8-bit codes on the CPU.

    Elsewhere it computes the same distances in float. Buffers: ``weight``
    uint8, ``code_scale`` and ``zero_point`` of input and weight alike, and
    the fused epilogue in float32.

    Args:
        layer (FusedAdderConv2d): float layer.
        low, high (float): range of values that codes are for; what lies
            beyond is clipped.
    """

    def __init__(self, layer, low, high):
        torch.nn.Module.__init__(self)
        self.relu, self.geometry = layer.relu, layer.geometry
        self.mode, self._packed = layer.mode, None
        scale = max(high - low, 1e-8) / CODES
        zero_point = round(min(max(-low / scale, 0), CODES))
        self.register_buffer('code_scale', torch.tensor(
            scale, dtype=torch.float32))
        self.register_buffer('zero_point', torch.tensor(zero_point))
        self.register_buffer('weight', self.to_codes(layer.weight))
        for name in ('mean', 'scale', 'bias'):
            self.register_buffer(name, getattr(layer, name).clone())
        self.training = False

    def to_codes(self, values):
        """Return the codes of float values, uint8; half rounds to even."""
        codes = (values * (1 / self.code_scale)).round() + self.zero_point
        return codes.clamp(0, CODES).to(torch.uint8)

    def forward(self, input, residual=None):
        self._require_no_grad(input)
        stride, padding, dilation, groups = self.geometry
        if input.device.type != 'cpu':  # float codes, which are exact
            return self._composed(
                self.to_codes(input).float() - self.zero_point,
                self.weight.float() - self.zero_point, self.code_scale,
                residual)
        if self._packed is None:
            self._packed = pack_weight(self.weight, groups)
        return torch.ops.mmadder.adder_conv2d_int8(
            input.float(), self.weight, self._packed, self.code_scale.item(),
            self.zero_point.item(), self.mean, self.scale, self.bias,
            residual, self.relu, stride, padding, dilation, groups)

    def extra_repr(self):
        return f'{super().extra_repr()}, 8 bits'


class QuantizedShortcutConv2d(QuantizedAdderConv2d):
    """The same with its input as residual."""

    def forward(self, input):
        return super().forward(input, input)


class _Observer:
    """Histogram of a layer's inputs over a growing range."""

    def __init__(self):
        self.low = self.high = None

    def add(self, input):
        low, high = (value.item() for value in input.float().aminmax())
        if self.low is None:
            self.low, self.high = low, max(high, low + 1e-8)
            self.counts = torch.zeros(BINS)
        elif low < self.low or high > self.high:
            self._widen(min(low, self.low), max(high, self.high))
        self.counts += input.float().histc(BINS, self.low, self.high)

    def centres(self):
        width = (self.high - self.low) / BINS
        return self.low + width * (torch.arange(BINS) + 0.5)

    def _widen(self, low, high):
        old, counts = self.centres(), self.counts
        self.low, self.high = low, high
        index = ((old - low) / (high - low) * BINS).long().clamp(0, BINS - 1)
        self.counts = torch.zeros(BINS).index_add_(0, index, counts)


def quantize(model, loader, batches=None, progress=True):
    """Return an 8-bit copy of a model, calibrated on data.

    The copy is fused (:func:`mmadder.inference.fusion.fuse_adder_bn`), then runs over
    the loader in float while each adder records its inputs, and each adder
    gets the range of codes with the smallest mean squared error of input and
    weight together. Stem, classifier and detection heads stay in float.

    Args:
        model (BaseModel): a classifier or detector in evaluation mode, not
            fused.
        loader (Iterable): batches for the model's ``test_step``, such as a
            runner's validation loader; 100 pictures are enough.
        batches (int, optional): stop after so many.
        progress (bool): show a bar.

    Returns:
        nn.Module: gives predictions as ``model`` does.

    Raises:
        RuntimeError: training mode, no adders, or an empty loader.
        ValueError: an input that is not finite; the message names the layer.
    """
    model = fuse_adder_bn(model)
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, FusedAdderConv2d)}
    observers = _observe(model, layers, loader, batches, progress)
    for name, layer in layers.items():
        _replace(model, name, layer,
                 _best_range(observers[name], layer.weight))
    return model


def empty_quantized(model):
    """Return the structure of :func:`quantize`, to load a state dict into.

    Args:
        model (nn.Module): built from the config, not fused.

    Returns:
        nn.Module: a quantized copy whose codes mean nothing yet.
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
    observers = {name: _Observer() for name in layers}

    def hook(name):
        def record(module, inputs):
            if not inputs[0].isfinite().all():
                raise ValueError(f'quantize: the input of {name} has values '
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
        raise RuntimeError('quantize: the loader gave no batch to calibrate '
                           'with')
    return observers


def _best_range(observer, weight):
    """The range with the smallest error of input and weight together.

    Candidates shrink the whole range towards zero, which stays inside, as it
    is the padding. Both errors are means, so that each side counts the same.
    """
    weights = weight.flatten()
    if observer.low is None:  # the layer never ran
        observer.add(weights)
    inputs, share = observer.centres(), observer.counts
    share = share / share.sum()
    low = min(observer.low, weights.min().item(), 0.)
    high = max(observer.high, weights.max().item(), 0.)
    best, best_error = (low, high), float('inf')
    for step in range(CANDIDATES):
        factor = 1 - step / (CANDIDATES + 1)
        for bounds in ((low * factor, high * factor), (low, high * factor)):
            error = ((_rounding_error(inputs, *bounds) * share).sum()
                     + _rounding_error(weights, *bounds).mean()).item()
            if error < best_error:
                best, best_error = bounds, error
    return best


def _rounding_error(values, low, high):
    scale = max(high - low, 1e-8) / CODES
    zero_point = round(-low / scale)
    codes = ((values / scale).round() + zero_point).clamp(0, CODES)
    return ((codes - zero_point) * scale - values).square()
