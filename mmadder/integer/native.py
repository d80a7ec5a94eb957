"""The integer network by SIMD kernels, on the CPU.

The same bytes as :mod:`.integer_reference`, in a small part of the time: maps
stay in the kernels' layout from step to step.
"""
import threading
from collections import OrderedDict

import torch
from torch import Tensor

from mmadder.errors import InputError
from mmadder.ops import pack_weight
from mmadder.ops.extension import require_extension

from .network import IntegerNetwork

MOST_SIZES = 4  # of pictures, whose plans are kept


class NativeNetwork:
    """An integer network to call.

    Plans are made for each size of pictures when it first comes; the last few
    are kept, with the memory of their maps. Bytes do not depend on threads,
    batch or processor.

    Args:
        network: what to run.

    Example:
        >>> native = NativeNetwork(IntegerNetwork.load('network.npz'))
        >>> native(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))
    """

    def __init__(self, network: IntegerNetwork):
        require_extension()
        self.network = network
        self.steps = [_Step(network, step) for step in network.steps]
        self._plans: OrderedDict[tuple, _Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of pictures.

        Args:
            images: (N, C, H, W), uint8, of the network's size if it has one.

        Returns:
            {name: (N, C, H, W)}, uint8 or int32 as the map's type.

        Raises:
            InputError: another dtype, number of channels or size.
        """
        size = self._size(images)
        with self._lock:
            if size in self._plans:
                self._plans.move_to_end(size)
            else:
                self._plans[size] = _Plan(self.network, self.steps, size)
                if len(self._plans) > MOST_SIZES:
                    self._plans.popitem(last=False)
            return self._plans[size].run(images)

    def __getstate__(self):  # plans cannot be copied, nor locks
        return dict(self.__dict__, _plans=OrderedDict(), _lock=None)

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())

    def _size(self, images):
        network = self.network
        channels = network.maps[network.image]['channels']
        if images.dtype != torch.uint8 or images.dim() != 4 \
                or images.shape[1] != channels or images.device.type != 'cpu':
            raise InputError(
                f'integer network: images must be (N, {channels}, H, W), '
                f'uint8 on the CPU, got {images.dtype} of '
                f'{tuple(images.shape)} on {images.device}')
        size = tuple(images.shape)
        if network.size is not None and list(size[2:]) != network.size:
            raise InputError(
                f'integer network: it is for pictures of {network.size} '
                f'(h, w), got {list(size[2:])}')
        return size


class _Step:
    """A step with its arrays as the kernels take them."""

    def __init__(self, network, step):
        self.step, self.kind, self.name = step, step['kind'], step['output']
        self.sources = network.sources(step)
        self.target = network.maps[self.name]
        self.accumulates = self.target['type'] == 'int32'
        self.low_and_highest = [step.get('low'), self.target.get('highest')]
        if self.kind not in ('adder', 'convolution'):
            return
        self.geometry = [
            list(step[key]) for key in ('stride', 'padding', 'dilation')]
        weight = torch.from_numpy(network.array(step, 'weight').copy())
        self.weight_size = list(weight.shape)
        if self.kind == 'adder':
            self.weight = [pack_weight(weight)]
        else:
            self.weight = [
                torch.ops.mmadder.conv2d_int8_pack_weight(
                    weight, self.geometry[2]),
                weight.sum((2, 3), dtype=torch.int32)]
        names = ['bias'] if self.accumulates else ['multiplier', 'bias']
        self.vectors = [torch.from_numpy(network.array(step, name).copy())
                        for name in names]


class _Plan:
    """The steps for one size of pictures, (N, C, H, W)."""

    def __init__(self, network, steps, size):
        self.network = network
        self.sizes = network.sizes(size[2:])
        self.batch = size[0]
        self.native = torch.classes.mmadder.IntegerPlan(
            list(size), network.maps[network.image]['zero_point'])
        self.outputs = []  # maps, in the order of the run
        self._numbers = {network.image: -1}
        self._free = {}  # maps whose readers have run
        self._borders = self._find_borders(steps)
        readers = [source for step in steps for source in step.sources]
        self._readers = {name: readers.count(name) for name in network.maps}
        for step in steps:
            self._add(step)

    def run(self, images):
        outputs = dict(zip(
            self.outputs, self.native.run(images, 0, self.native.size())))
        return {name: outputs[source] for name, source in
                self.network.outputs.items()}

    def _find_borders(self, steps):
        """{map: (h, w)} that the adders which read it look beyond it."""
        borders = {}
        for step in steps:
            if step.kind == 'adder':
                source = step.sources[0]
                borders[source] = tuple(map(
                    max, borders.get(source, (0, 0)), step.step['padding']))
        return borders

    def _add(self, step):
        if step.accumulates:
            self.native.accumulate(
                self._numbers[step.sources[0]], step.weight_size,
                *step.weight, *step.vectors, *step.geometry)
            self.outputs.append(step.name)
        else:
            self._numbers[step.name] = self._new_map(step)
            getattr(self, f'_add_{step.kind}')(
                step, *(self._numbers[source] for source in step.sources))
            if step.name in self.network.outputs.values():
                self.native.write(self._numbers[step.name])
                self.outputs.append(step.name)
        for source in step.sources:
            self._readers[source] -= 1
            self._release(source)
        self._release(step.name)

    def _add_adder(self, step, source, residual=-1):
        self.native.adder(
            *self._layer(step, source, residual), step.step['center'])

    def _add_convolution(self, step, source, residual=-1):
        self.native.convolution(*self._layer(step, source, residual))

    def _layer(self, step, source, residual):
        numbers = [step.step['shift'],
                   step.step.get('residual_multiplier', 0),
                   *step.low_and_highest]
        return (source, residual, self._numbers[step.name], step.weight_size,
                *step.weight, *step.vectors, numbers, *step.geometry)

    def _add_max_pool(self, step, source):
        self.native.max_pool(
            source, [*step.step['kernel'], *step.step['stride'],
                     *step.step['padding']], self._numbers[step.name])

    def _add_average(self, step, source):
        self.native.average(
            source, self._numbers[step.name],
            [step.step['multiplier'], step.step['shift'],
             *step.low_and_highest])

    def _add_sum(self, step, left, right):
        self.native.sum(
            left, right, self._numbers[step.name],
            [*step.step['multipliers'], *step.low_and_highest])

    def _new_map(self, step):
        kept = self._free.get(self._likeness(step.name))
        if kept:
            return kept.pop()
        size, border, zero_point = self._likeness(step.name)
        return self.native.map(list(size), list(border), zero_point)

    def _likeness(self, name):
        """What a map's memory is good for: size, border and what is in it."""
        entry = self.network.maps[name]
        return ((self.batch, entry['channels'], *self.sizes[name]),
                self._borders.get(name, (0, 0)), entry['zero_point'])

    def _release(self, name):
        """Give a map's memory to later steps, after its last reader."""
        if not self._readers[name] and self._numbers.get(name, -1) >= 0:
            self._free.setdefault(self._likeness(name), []).append(
                self._numbers.pop(name))
