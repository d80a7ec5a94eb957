"""The oracle against PyTorch, step by step, and by hand."""
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_vectors import FOLDER, NETWORKS
from random_networks import Builder, classifier, pyramid

from mmadder.integer import IntegerNetwork, integer_reference
from mmadder.ops import reference

RNG = np.random.default_rng(3)


def run(builder, images=None):
    """(network, maps) of one step behind a stem."""
    network = builder.build()
    if images is None:
        images = RNG.integers(0, 256, (2, 3, 9, 7), dtype=np.uint8)
    return network, integer_reference.run(network, images)


def floats(network, maps, name):
    point = np.reshape(network.maps[name]['zero_point'], (1, -1, 1, 1))
    return torch.from_numpy(maps[name].astype(np.float64) - point)


def requantized(acc, network, step, residual=None):
    """By exact fractions: the nearest of each rounding, half upwards."""
    multiplier, bias = (network.arrays[f"{step['output']}/{name}"].tolist()
                        for name in ('multiplier', 'bias'))
    target = network.maps[step['output']]
    codes = np.empty(acc.shape, np.int64)
    for index in np.ndindex(acc.shape):
        c = index[1]
        t = Fraction(int(acc[index]) * multiplier[c], 2**step['shift'])
        t = min(max((t + Fraction(1, 2)).__floor__(), -2**30), 2**30 - 1)
        t += bias[c]
        if residual is not None:
            t += int(residual[index]) * step['residual_multiplier']
        code = target['zero_point'] + (
            Fraction(t, 2**14) + Fraction(1, 2)).__floor__()
        codes[index] = min(max(code, step['low']), target['highest'])
    return codes


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('geometry', [
    dict(), dict(kernel=(3, 2), stride=(2, 1), padding=(0, 1)),
    dict(kernel=(2, 2), padding=(2, 1), dilation=(2, 3))])
def test_adder(center, geometry):
    b = Builder()
    x = b.convolution('image', 5)
    y = b.adder(x, 4, center=center, relu=False, **geometry)
    b.output(y)
    network, maps = run(b)
    step = network.steps[-1]
    point = network.maps[x]['zero_point']
    weight = torch.from_numpy(
        network.arrays[f'{y}/weight'].astype(np.float64) - point)
    acc = reference.adder_conv2d(
        floats(network, maps, x), weight, step['stride'], step['padding'],
        step['dilation'], 1)
    if center:
        acc = len(weight) * acc - acc.sum(1, keepdim=True)
    np.testing.assert_array_equal(
        maps[y], requantized(acc.numpy(), network, step))


def test_convolution_and_residual():
    b = Builder(1)
    x = b.convolution('image', 5, kernel=(3, 2), stride=(2, 1), padding=(2, 0),
                      dilation=(1, 2))
    y = b.convolution(x, 5, residual=x, relu=False)
    z = b.convolution(y, 3, accumulate=True)
    b.output(z)
    network, maps = run(b)
    for name, source in (x, 'image'), (y, x), (z, y):
        step = next(s for s in network.steps if s['output'] == name)
        acc = F.conv2d(
            floats(network, maps, source), torch.from_numpy(
                network.arrays[f'{name}/weight'].astype(np.float64)), None,
            step['stride'], step['padding'], step['dilation']).numpy()
        if name == z:
            bias = network.arrays[f'{z}/bias'].reshape(1, -1, 1, 1)
            np.testing.assert_array_equal(maps[z], acc + bias)
            continue
        residual = floats(network, maps, x).numpy() if name == y else None
        np.testing.assert_array_equal(
            maps[name], requantized(acc, network, step, residual))


def test_max_pool_and_average():
    b = Builder(2)
    x = b.convolution('image', 5)
    y = b.max_pool(x, (3, 2), (2, 1), (1, 1))
    z = b.average(y)
    b.output(z)
    network, maps = run(b)
    pooled = F.max_pool2d(torch.from_numpy(maps[x]).double(), (3, 2), (2, 1),
                          (1, 1)).numpy()
    np.testing.assert_array_equal(maps[y], pooled)
    step, target = network.steps[-1], network.maps[z]
    values = floats(network, maps, y)
    count = values[0, 0].numel()
    for n, c in np.ndindex(2, 5):
        mean = Fraction(int(values[n, c].sum()) * step['multiplier'],
                        count * 2**step['shift'])
        code = target['zero_point'] + (mean + Fraction(1, 2)).__floor__()
        assert maps[z][n, c, 0, 0] == min(max(code, 0), 255)


def test_sum_of_a_map_and_a_smaller_one():
    b = Builder(4)
    x = b.convolution('image', 5)
    small = b.max_pool(x, (1, 1), (2, 2), (0, 0))
    y = b.sum(x, small)
    b.output(y)
    network, maps = run(b)
    left = floats(network, maps, x)
    right = F.interpolate(floats(network, maps, small), left.shape[2:])
    a, c = network.steps[-1]['multipliers']
    total = (left * a + right * c).numpy().astype(np.int64)
    target = network.maps[y]
    expected = [min(max(target['zero_point'] + (
        Fraction(int(t), 2**14) + Fraction(1, 2)).__floor__(), 0), 255)
        for t in total.flat]
    np.testing.assert_array_equal(maps[y].ravel(), expected)


@pytest.mark.parametrize('network', [
    classifier(), classifier(center=False, highest=15), pyramid(highest=63)])
def test_whole_networks_use_their_codes(network):
    images = RNG.integers(0, 256, (2, 3, 33, 40), dtype=np.uint8)
    maps = integer_reference.run(network, images)
    for name, size in network.sizes((33, 40)).items():
        assert maps[name].shape[2:] == size
        assert str(maps[name].dtype) == network.maps[name]['type']
        assert len(np.unique(maps[name])) > 1
    alone = integer_reference.run(network, images[1:])
    for name in network.outputs.values():
        np.testing.assert_array_equal(alone[name][0], maps[name][1])


@pytest.mark.parametrize('name', list(NETWORKS))
def test_golden_vectors(name):
    """A changed byte would be another format."""
    network = IntegerNetwork.load(FOLDER / f'{name}.npz')
    with np.load(FOLDER / f'{name}_maps.npz') as expected:
        maps = integer_reference.run(network, expected[network.image])
        assert maps.keys() == set(expected.files)
        for step in network.steps:
            found = maps[step['output']]
            assert found.dtype == expected[step['output']].dtype
            np.testing.assert_array_equal(found, expected[step['output']])
