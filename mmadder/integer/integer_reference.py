"""The integer network in NumPy: slow, plain, and what all others must equal.

docs/integer_format.md in code; no floating point, no PyTorch.
"""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .network import FRACTION, IntegerNetwork

HALF = 1 << FRACTION - 1  # of a code


def run(network: IntegerNetwork, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return all maps of a network.

    Args:
        images: (N, C, H, W), uint8.

    Returns:
        {map: (N, C, H, W)}, uint8 or int32 as the map's type.
    """
    maps = {network.image: images}
    for step in network.steps:
        result = STEPS[step['kind']](network, step, maps)
        kind = network.maps[step['output']]['type']
        maps[step['output']] = result.astype(kind)
    return maps


def windows(x, kernel, stride, dilation=(1, 1)):
    """(N, C, H_out, W_out, kh, kw) of a padded map."""
    (dh, dw), (sh, sw) = dilation, stride
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    view = sliding_window_view(x, extent, (2, 3))
    return view[:, :, ::sh, ::sw, ::dh, ::dw]


def pad(x, padding, zero_point):
    """Less the zero point, int64, within a border of zeros."""
    zero_point = np.reshape(zero_point, (1, -1, 1, 1))
    (ph, pw), x = padding, x.astype(np.int64) - zero_point
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


def layer_windows(network, step, maps, weight):
    x = maps[step['input']]
    x = pad(x, step['padding'], network.maps[step['input']]['zero_point'])
    return windows(x, weight.shape[2:], step['stride'], step['dilation'])


def adder(network, step, maps):
    zero_point = network.maps[step['input']]['zero_point']
    weight = network.array(step, 'weight').astype(np.int64) - zero_point
    seen = layer_windows(network, step, maps, weight)
    distance = np.stack([
        np.abs(seen - kernel[None, :, None, None]).sum((1, 4, 5))
        for kernel in weight], 1)
    acc = -distance
    if step['center']:
        acc = distance.sum(1, keepdims=True) - len(weight) * distance
    return requantize(network, step, maps, acc)


def convolution(network, step, maps):
    weight = network.array(step, 'weight').astype(np.int64)
    seen = layer_windows(network, step, maps, weight)
    acc = np.einsum('nchwij,ocij->nohw', seen, weight, optimize=True)
    if network.maps[step['output']]['type'] == 'int32':
        return acc + network.array(step, 'bias').reshape(1, -1, 1, 1)
    return requantize(network, step, maps, acc)


def requantize(network, step, maps, acc):
    multiplier, bias = (
        network.array(step, name).astype(np.int64).reshape(1, -1, 1, 1)
        for name in ('multiplier', 'bias'))
    shift = step['shift']
    t = (acc * multiplier + (1 << shift - 1)) >> shift
    t = np.clip(t, -2**30, 2**30 - 1) + bias
    if step.get('residual') is not None:
        zero_point = network.maps[step['residual']]['zero_point']
        residual = maps[step['residual']].astype(np.int64) - zero_point
        t = t + residual * step['residual_multiplier']
    return to_codes(network, step, (t + HALF) >> FRACTION)


def to_codes(network, step, values):
    target = network.maps[step['output']]
    return np.clip(target['zero_point'] + values, step['low'],
                   target['highest'])


def max_pool(network, step, maps):
    # A code of -1 loses against all others.
    x = pad(maps[step['input']], step['padding'], -1) - 1
    return windows(x, step['kernel'], step['stride']).max((4, 5))


def average(network, step, maps):
    zero_point = network.maps[step['input']]['zero_point']
    x = maps[step['input']].astype(np.int64) - zero_point
    count, shift = x.shape[2] * x.shape[3], step['shift']
    total = x.sum((2, 3), keepdims=True) * step['multiplier']
    return to_codes(network, step,
                    (total + (count << shift - 1)) // (count << shift))


def add(network, step, maps):
    left, right = (
        (maps[name].astype(np.int64) - network.maps[name]['zero_point'])
        * multiplier
        for name, multiplier in zip(step['inputs'], step['multipliers']))
    rows, columns = (
        np.arange(left.shape[i]) * right.shape[i] // left.shape[i]
        for i in (2, 3))
    total = left + right[:, :, rows[:, None], columns]
    return to_codes(network, step, (total + HALF) >> FRACTION)


STEPS = dict(adder=adder, convolution=convolution, max_pool=max_pool,
             average=average, sum=add)
