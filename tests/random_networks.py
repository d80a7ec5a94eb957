"""Integer networks of random codes, with every kind of step."""
import numpy as np

from mmadder.integer import IntegerNetwork


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
