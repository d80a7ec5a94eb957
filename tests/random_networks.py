"""Integer networks of random codes, with every kind of step."""
import itertools

import numpy as np

from mmadder.integer import IntegerNetwork
from mmadder.integer.network import MAX_BIAS

SIZE = 29, 41  # of pictures


class Builder:
    """Adds steps to a network; each returns the name of its map."""

    def __init__(self, seed=0, size=None, highest=255, channels=3):
        self.rng = np.random.default_rng(seed)
        self.highest = highest
        self.maps = dict(image=dict(
            type='uint8', channels=channels, scale=1., highest=255,
            zero_point=self.rng.integers(90, 140, channels).tolist()))
        self.size, self.steps, self.outputs, self.arrays = size, [], {}, {}

    def build(self, **model):
        return IntegerNetwork(dict(
            image='image', size=self.size, maps=self.maps, steps=self.steps,
            outputs=self.outputs, model=model), self.arrays)

    def map(self, channels, zero_point=None, **entry):
        name = f'map_{len(self.maps)}'
        if zero_point is None:
            zero_point = int(self.rng.integers(0, self.highest + 1))
        self.maps[name] = dict(dict(
            type='uint8', channels=channels, highest=self.highest,
            scale=float(self.rng.uniform(0.01, 0.1)), zero_point=zero_point),
            **entry)
        return name

    def layer(self, kind, source, channels, kernel=(3, 3), stride=(1, 1),
              padding=(1, 1), dilation=(1, 1), center=False, relu=True,
              residual=None, accumulate=False, zero_point=None,
              shift_only=False):
        """An adder or a convolution whose codes use their whole range."""
        rng = self.rng
        shape = (channels, self.maps[source]['channels'], *kernel)
        terms = int(np.prod(shape[1:]))
        step = dict(kind=kind, input=source, stride=list(stride),
                    padding=list(padding), dilation=list(dilation))
        if kind == 'adder':
            weight = rng.integers(0, self.highest + 1, shape, dtype=np.uint8)
            step['center'] = center
            spread = 40 * terms**.5 * (channels if center else 1)
        else:
            weight = rng.integers(-127, 128, shape, dtype=np.int8)
            spread = 73 * 100 * terms**.5
        if accumulate:
            name = self.map(channels, type='int32', scale=rng.uniform(
                1e-4, 1e-3, channels).tolist())
            for key in ('highest', 'zero_point'):
                del self.maps[name][key]
            bias = rng.integers(-2**20, 2**20, channels)
        else:
            name = self.map(channels, zero_point)
            factor = self.highest / 4 * 2**14 / spread
            shift = 30 - int(np.ceil(np.log2(factor)))
            step['shift'] = min(max(shift, 1), 62)
            signs = rng.choice((-1, 1), channels)
            sizes = factor * 2.**step['shift'] * rng.uniform(.3, 1, channels)
            if shift_only:
                sizes = 2.**np.round(np.log2(sizes))
            multiplier = (signs * sizes).astype(np.int32)
            self.arrays[f'{name}/multiplier'] = multiplier
            bias = rng.integers(-40 * 2**14, 40 * 2**14, channels)
            if kind == 'adder' and not center:  # around no distance at all
                mean = terms * self.highest / 3
                bias = bias + mean * multiplier / 2.**step['shift']
                bias = bias.clip(-2**29 + 2**14, 2**29 - 2**14)
            step['low'] = (
                self.maps[name]['zero_point'] if relu else 0)
            if residual is not None:
                step['residual'] = residual
                step['residual_multiplier'] = int(
                    rng.integers(-2 * 2**14, 2 * 2**14))
        self.arrays[f'{name}/weight'] = weight
        self.arrays[f'{name}/bias'] = np.asarray(bias).astype(np.int32)
        self.steps.append(dict(step, output=name))
        return name

    def adder(self, source, channels, **kwargs):
        return self.layer('adder', source, channels, **kwargs)

    def convolution(self, source, channels, **kwargs):
        return self.layer('convolution', source, channels, **kwargs)

    def max_pool(self, source, kernel=(3, 3), stride=(2, 2), padding=(1, 1)):
        name = f'map_{len(self.maps)}'
        self.maps[name] = dict(self.maps[source])
        self.steps.append(dict(
            kind='max_pool', input=source, output=name, kernel=list(kernel),
            stride=list(stride), padding=list(padding)))
        return name

    def average(self, source):
        name = self.map(self.maps[source]['channels'])
        self.steps.append(dict(
            kind='average', input=source, output=name, low=0, shift=24,
            multiplier=int(self.rng.integers(2**23, 2**26))))
        return name

    def sum(self, left, right, relu=False):
        name = self.map(self.maps[left]['channels'])
        self.steps.append(dict(
            kind='sum', inputs=[left, right], output=name,
            multipliers=self.rng.integers(2**12, 2**14, 2).tolist(),
            low=self.maps[name]['zero_point'] if relu else 0))
        return name

    def output(self, source):
        self.outputs[f'output_{len(self.outputs)}'] = source


def classifier(seed=0, widths=(10, 24), center=True, highest=255, **layer):
    """Stem, pooling, residual blocks with a downsample, average, linear."""
    b = Builder(seed, highest=highest)
    x = b.convolution('image', widths[0], kernel=(7, 7), stride=(2, 2),
                      padding=(3, 3), zero_point=0)
    x = b.max_pool(x)
    for width in widths:
        stride = (1, 1) if width == widths[0] else (2, 2)
        y = b.adder(x, width, stride=stride, center=center, zero_point=0,
                    **layer)
        if width != widths[0]:
            x = b.adder(x, width, kernel=(1, 1), stride=stride,
                        padding=(0, 0), relu=False, center=center, **layer)
        x = b.adder(y, width, residual=x, center=center, **layer)
    x = b.convolution(b.average(x), 10, kernel=(1, 1), padding=(0, 0),
                      accumulate=True)
    b.output(x)
    return b.build()


def pyramid(seed=0, widths=(24, 70), channels=12, center=True, highest=255):
    """Two levels, laterals joined from the top, and a dense head."""
    b = Builder(seed, highest=highest)
    x = b.convolution('image', 17, stride=(2, 2), zero_point=0)
    levels = []
    for width in widths:
        x = b.adder(x, width, stride=(2, 2), center=center)
        levels.append(x)
    laterals = [b.adder(level, channels, kernel=(1, 1), padding=(0, 0),
                        relu=False, center=center) for level in levels]
    joined = [b.sum(laterals[0], laterals[1]), laterals[1]]
    for level in joined:
        y = b.adder(level, channels, relu=False, residual=level,
                    center=center)
        b.output(y)
        b.output(b.convolution(
            b.convolution(y, 14, zero_point=0), 9, accumulate=True))
        if level == joined[-1]:
            b.output(b.max_pool(y, (1, 1), (2, 2), (0, 0)))
    return b.build()


def lopsided():
    """Geometries of which no two numbers agree, two channels."""
    b = Builder(7, highest=200, channels=2)
    x = b.convolution('image', 5, kernel=(2, 3), stride=(2, 1),
                      padding=(0, 2), dilation=(1, 2))
    x = b.max_pool(x, (2, 3), (1, 2), (1, 1))
    y = b.adder(x, 7, kernel=(3, 2), stride=(1, 2), padding=(2, 1),
                dilation=(2, 3), center=True)
    y = b.convolution(y, 7, relu=False, residual=y)
    b.output(b.sum(y, b.adder(y, 7, stride=(3, 2), padding=(0, 0))))
    return b.build()


def shift_only(seed=0, width=16):
    """A classifier whose residuals are shifted, too."""
    network = classifier(seed, (8, width), shift_only=True)
    for step, factor in zip(
            (step for step in network.steps if 'residual' in step),
            (2**13, -2**15)):
        step['residual_multiplier'] = factor
    return network


def extremes(highest=255):
    """Numbers at their limits: sums beyond 30 bits, shifts of 1 and 62."""
    b = Builder(5, highest=highest)
    x = b.convolution('image', 6, zero_point=0)
    for i, (shift, residual) in enumerate(itertools.product(
            (1, 62), (2**21 - 1, -2**21 + 1, -2**20))):
        x = b.adder(x, 6, relu=False, residual=x, center=i % 2 == 0,
                    zero_point=highest // 2)
        b.steps[-1].update(shift=shift, residual_multiplier=residual)
        b.arrays[f'{x}/multiplier'][:] = (
            2**31 - 1, -2**31, 2**30, -2**30, 0, 1)
        b.arrays[f'{x}/bias'][:] = np.resize((MAX_BIAS, -MAX_BIAS, 0, -1, 1,
                                              2**28), 6)
        b.output(x)
    weight = b.arrays[f'{x}/weight']
    weight[:3], weight[3:] = 0, 255
    x = b.convolution(x, 4, residual=None, relu=False)
    b.steps[-1]['shift'] = 1
    b.arrays[f'{x}/multiplier'][:] = -2**31, 2**31 - 1, 0, 1
    b.arrays[f'{x}/weight'][:2] = -128
    b.output(x)
    x = b.sum(x, x)
    b.steps[-1]['multipliers'] = [2**21 - 1, -2**21 + 1]
    x = b.average(x)
    b.steps[-1].update(multiplier=2**31 - 1, shift=40)
    b.output(x)
    b.output(b.convolution(x, 3, kernel=(1, 1), padding=(0, 0),
                           accumulate=True))
    b.arrays[f'map_{len(b.maps) - 1}/bias'][:] = (2**30 - 1, -2**30 + 1, 0)
    return b.build()


def long_sums():
    """Sums near their limits, for pictures of 3x3.

    Of 32,400 codes of 255: 30 bits of a convolution, 31 of an adder whose 250
    filters are centered.
    """
    b = Builder()
    x = b.convolution('image', 3600, zero_point=0)
    b.arrays[f'{x}/multiplier'][:] = 0
    b.arrays[f'{x}/bias'][:] = 2**23
    y = b.adder(x, 250, padding=(0, 0), center=True)
    b.arrays[f'{y}/weight'][:] = 0
    b.arrays[f'{y}/weight'][7] = 255
    b.arrays[f'{y}/bias'][:] //= 2**6
    b.output(y)
    y = b.convolution(x, 3, padding=(0, 0), accumulate=True)
    b.arrays[f'{y}/weight'][:] = np.reshape((127, -127, 1), (3, 1, 1, 1))
    b.output(y)
    return b.build()


def one_weight():
    """Two convolutions that share theirs."""
    b = Builder()
    x = b.convolution('image', 6)
    for relu in (True, False):
        x = b.convolution(x, 6, relu=relu)
        b.output(x)
    network = b.build()
    label = f"{network.steps[1]['output']}/weight"
    network.steps[2]['weight'] = label
    network.arrays[f'{x}/weight'] = network.arrays[label]
    return network


def pictures(count=2, size=SIZE, channels=3, seed=0):
    """Noise, and all black and all white."""
    noise = np.random.default_rng(seed).integers(
        0, 256, (count, channels, *size), dtype=np.uint8)
    black = np.zeros_like(noise[:1])
    return np.concatenate([noise, black, black + 255])
