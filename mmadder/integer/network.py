"""The integer network: its file, and what a sound one is.

docs/integer_format.md says what it computes.
"""
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mmadder.errors import InputError
from mmadder.files import whole_file

FORMAT, VERSION = 'mmadder integer network', 1
MAX_SHIFT = 62
FRACTION = 14  # bits of t below a code
MAX_BIAS = 2**29 - 2**FRACTION
MAX_RESIDUAL_MULTIPLIER = 2**21 - 1
MAX_AVERAGE_SHIFT = 40
MOST_POSITIONS = 2**20  # of an average
# What the steps of a kind have, beside kind and output.
_LAYER = {'input', 'weight', 'stride', 'padding', 'dilation'}
_REQUANTIZED = {'shift', 'low', 'residual', 'residual_multiplier'}
_KEYS = dict(
    adder=_LAYER | _REQUANTIZED | {'center'},
    convolution=_LAYER | _REQUANTIZED,
    max_pool={'input', 'kernel', 'stride', 'padding'},
    average={'input', 'multiplier', 'shift', 'low'},
    sum={'inputs', 'multipliers', 'low'})


class IntegerNetwork:
    """Steps over maps of codes, and their arrays.

    Args:
        header: as the file has it, without ``format`` and ``version``.
        arrays: {MAP/name: array}.

    Raises:
        InputError: anything that docs/integer_format.md rules out; the
            message names the step by its map.
    """

    def __init__(self, header: dict[str, Any], arrays: dict[str, np.ndarray]):
        try:
            self.image: str = header['image']
            size = header['size']
            self.size: list[int] | None = None if size is None else list(size)
            self.maps: dict[str, dict] = header['maps']
            self.steps: list[dict] = header['steps']
            self.outputs: dict[str, str] = header['outputs']
            self.model: dict = header.get('model', {})
            self.arrays = arrays
            _Check(self).run()
        except (KeyError, TypeError, AttributeError, IndexError,
                OverflowError) as error:
            raise InputError('integer network: its header is damaged: '
                             f'{type(error).__name__} {error}') from error

    def array(self, step: dict, name: str) -> np.ndarray:
        """A step's ``weight``, ``multiplier`` or ``bias``."""
        return self.arrays[self.label(step, name)]

    @staticmethod
    def sources(step: dict) -> list[str]:
        """The maps that a step reads."""
        names = [step.get('input'), step.get('residual'),
                 *step.get('inputs', ())]
        return [name for name in names if name is not None]

    @staticmethod
    def label(step: dict, name: str) -> str:
        """The name of a step's array; weights may be another step's."""
        own = f"{step['output']}/{name}"
        return step.get('weight', own) if name == 'weight' else own

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        header = dict(
            format=FORMAT, version=VERSION, image=self.image, size=self.size,
            maps=self.maps, steps=self.steps, outputs=self.outputs,
            model=self.model)
        text = json.dumps(header, allow_nan=False).encode()
        with whole_file(path) as partial, open(partial, 'wb') as file:
            np.savez(file, header=np.frombuffer(text, np.uint8),
                     **self.arrays)

    @classmethod
    def load(cls, path: str | Path) -> 'IntegerNetwork':
        """Read a file of :meth:`save`; nothing in it is executed.

        Raises:
            InputError: no such file, another version, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop('header').tobytes())
        except FileNotFoundError as error:
            raise InputError(f'no such file: {path}') from error
        # Only reading is inside, and one flipped byte can end in any error of
        # zipfile, zlib, NumPy's headers (tokenize, ast), memory or JSON.
        except Exception as error:
            raise InputError(
                f'{path} is no integer network, or damaged '
                f'({type(error).__name__}: {error}); '
                'tools/export_integer.py writes them') from error
        if not isinstance(header, dict) or header.pop('format', 0) != FORMAT:
            raise InputError(f'{path} is no integer network; '
                             'tools/export_integer.py writes them')
        version = header.pop('version', None)
        if version != VERSION:
            raise InputError(
                f'{path} is an integer network of version {version}, this '
                f'mmadder reads version {VERSION}: export it again')
        try:
            return cls(header, arrays)
        except InputError as error:
            raise InputError(f'{path}: {error}') from error

    def values(self, output: str, codes: np.ndarray) -> np.ndarray:
        """What the codes or numbers of an output stand for, float32."""
        entry = self.maps[self.outputs[output]]
        if entry['type'] == 'int32':
            scale = np.reshape(entry['scale'], (1, -1, 1, 1))
            return (codes * scale).astype(np.float32)
        codes = codes.astype(np.int32) - entry['zero_point']
        return (codes * entry['scale']).astype(np.float32)

    def sizes(self, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """{map: (H, W)} for a picture's size.

        Raises:
            InputError: the network takes pictures of another size, a window
                does not fit, or maps do not meet.
        """
        if self.size is not None and list(size) != list(self.size):
            raise InputError(
                f'size is {tuple(size)} (h, w), this integer network takes '
                f'pictures of {tuple(self.size)} only')
        found = {self.image: tuple(size)}
        for step in self.steps:
            found[step['output']] = self._output_size(step, found)
        return found

    def _output_size(self, step, found):
        if step['kind'] == 'average':
            positions = math.prod(found[step['input']])
            if positions > MOST_POSITIONS:
                raise InputError(
                    f"{step['output']} is the average of {positions} "
                    f'positions, more than {MOST_POSITIONS}: give a smaller '
                    'size')
            return 1, 1
        if step['kind'] == 'sum':
            return found[step['inputs'][0]]
        kernel = step.get('kernel') or self.array(step, 'weight').shape[2:]
        size = tuple(
            (extent + 2 * p - d * (k - 1) - 1) // s + 1
            for extent, k, s, p, d in zip(
                found[step['input']], kernel, step['stride'],
                step['padding'], step.get('dilation', (1, 1))))
        if min(size) < 1:
            raise InputError(
                f"integer network: a picture of {found[self.image]} (h, w) "
                f"is too small for {step['output']}")
        residual = step.get('residual')
        if residual is not None and found[residual] != size:
            raise InputError(
                f"integer network: {step['output']} is {size}, its residual "
                f'{residual} {found[residual]}')
        return size


class _Check:
    """That a network can be run without surprises."""

    def __init__(self, network):
        self.network = network
        self.known = {network.image}

    def run(self):
        network = self.network
        for name, entry in network.maps.items():
            self._check_map(name, entry)
        self._codes(network.image, self._check_name(network.image, 'image'))
        if network.size is not None:
            self._integers('size', network.size, 1, 2**15, 2)
        for step in network.steps:
            self._check_step(step)
        missing = set(network.maps) - self.known
        self._require(not missing, f'no step writes {sorted(missing)}')
        self._require(isinstance(network.model, dict),
                      f'model must be an object, got {network.model}')
        self._require(network.outputs, 'it has no outputs')
        for name, source in network.outputs.items():
            self._require(source in self.known and source != network.image,
                          f'output {name} is of {source}, which is no map')

    def _require(self, condition, message):
        if not condition:
            raise InputError(f'integer network: {message}')

    def _integers(self, name, values, low, high, count):
        self._require(
            isinstance(values, list | tuple) and len(values) == count
            and all(type(v) is int and low <= v <= high for v in values),
            f'{name} must be {count} integers from {low} to {high}, got '
            f'{values}')

    def _check_name(self, name, what):
        self._require(name in self.network.maps,
                      f'{what} {name} is no map of the header')
        return self.network.maps[name]

    def _check_map(self, name, entry):
        count = entry['channels']
        self._integers(f'channels of {name}', [count], 1, 2**20, 1)
        scales = entry['scale']
        self._require(entry['type'] in ('uint8', 'int32'),
                      f"map {name} is of type {entry['type']}")
        if entry['type'] == 'uint8':
            self._integers(f'highest of {name}', [entry['highest']], 1, 255,
                           1)
            points = entry['zero_point']
            if name != self.network.image:
                points = [points] * count
            self._integers(f'zero_point of {name}', points, 0,
                           entry['highest'], count)
            scales = [scales]
        self._require(
            len(scales) == (1 if entry['type'] == 'uint8' else count)
            and all(isinstance(s, int | float) and math.isfinite(s) and s > 0
                    for s in scales),
            f'scale of {name} must be positive, for a map of int32 one per '
            'channel')

    def _codes(self, name, entry):
        self._require(entry['type'] == 'uint8',
                      f'{name} is of type int32, which no step reads')

    def _source(self, step, name):
        self._require(
            name in self.known,
            f"{step['output']} reads {name}, which no step before it writes")
        self._codes(name, self.network.maps[name])
        return self.network.maps[name]

    def _check_step(self, step):
        name = step['output']
        target = self._check_name(name, 'output of a step')
        self._require(name not in self.known, f'{name} is written twice')
        kinds = dict(adder=self._check_layer, convolution=self._check_layer,
                     max_pool=self._check_pool, average=self._check_average,
                     sum=self._check_sum)
        kind = step['kind']
        self._require(kind in kinds, f'{name} is a step of kind {kind}')
        keys = _KEYS[kind] - (
            _REQUANTIZED if target['type'] == 'int32' else set())
        unknown = step.keys() - keys - {'kind', 'output'}
        self._require(not unknown, f'{name}, a step of kind {kind} that '
                      f"writes {target['type']}, has no {sorted(unknown)}")
        kinds[kind](step, name, target)
        self.known.add(name)

    def _geometry(self, step, name, *keys):
        for key in keys:
            self._integers(f'{key} of {name}', step[key],
                           0 if key == 'padding' else 1, 2**15, 2)

    def _array(self, step, name, kind, shape):
        label = self.network.label(step, name)
        self._require(label in self.network.arrays, f'no array {label}')
        array = self.network.arrays[label]
        self._require(
            array.dtype == kind and (shape is None or array.shape == shape),
            f'{label} must be {np.dtype(kind)}'
            + (f' of {shape}' if shape else '')
            + f', got {array.dtype} of {array.shape}')
        return array

    def _low(self, step, name, target):
        self._integers(f'low of {name}', [step['low']], 0, target['highest'],
                       1)

    def _check_layer(self, step, name, target):
        source = self._source(step, step['input'])
        self._geometry(step, name, 'stride', 'padding', 'dilation')
        is_adder = step['kind'] == 'adder'
        weight = self._array(step, 'weight',
                             np.uint8 if is_adder else np.int8, None)
        self._require(
            weight.ndim == 4 and min(weight.shape) > 0
            and weight.shape[:2] == (target['channels'], source['channels']),
            f"{name}/weight is {weight.shape}, expected "
            f"({target['channels']}, {source['channels']}, kh, kw)")
        if is_adder:
            self._require(step['input'] != self.network.image,
                          f'{name} is an adder over the picture')
            self._require(type(step['center']) is bool,
                          f'center of {name} must be true or false')
            highest = max(source['highest'], int(weight.max()))
            largest = weight[0].size * highest * (
                len(weight) if step['center'] else 1)
        else:
            reach = max(source['highest'], 255)
            largest = int(np.abs(weight.astype(np.int64)).sum((1, 2, 3)).max()
                          ) * reach
        shape = (len(weight), )
        bias = self._array(step, 'bias', np.int32, shape).astype(np.int64)
        if target['type'] == 'int32':
            self._require(not is_adder, f'{name} is an adder that writes '
                          'int32')
            self._require(largest < 2**30 and np.abs(bias).max() < 2**30,
                          f'sums of {name} exceed 30 bits')
            return
        self._require(largest < 2**31, f'sums of {name} exceed 31 bits')
        self._array(step, 'multiplier', np.int32, shape)
        self._integers(f'shift of {name}', [step['shift']], 1, MAX_SHIFT, 1)
        self._require(np.abs(bias).max() <= MAX_BIAS,
                      f'{name}/bias must lie within {MAX_BIAS}')
        self._low(step, name, target)
        residual = step.get('residual')
        if residual is not None:
            entry = self._source(step, residual)
            self._require(
                entry['channels'] == target['channels']
                and residual != self.network.image,
                f'residual {residual} of {name} has {entry["channels"]} '
                f'channels, expected {target["channels"]}')
            self._residual(f'residual_multiplier of {name}',
                           [step['residual_multiplier']])

    def _residual(self, name, values):
        self._integers(name, values, -MAX_RESIDUAL_MULTIPLIER,
                       MAX_RESIDUAL_MULTIPLIER, len(values))

    def _same(self, name, source, target, keys):
        for key in keys:
            self._require(source[key] == target[key],
                          f'{key} of {name} is {target[key]}, of its input '
                          f'{source[key]}')

    def _check_pool(self, step, name, target):
        source = self._source(step, step['input'])
        self._same(name, source, target, (
            'type', 'channels', 'scale', 'zero_point', 'highest'))
        self._geometry(step, name, 'kernel', 'stride', 'padding')
        self._require(
            all(2 * p <= k for p, k in zip(step['padding'], step['kernel'])),
            f'padding of {name} is more than half its kernel')

    def _check_average(self, step, name, target):
        self._require(step['input'] != self.network.image,
                      f'{name} is the average of the picture')
        source = self._source(step, step['input'])
        self._same(name, source, target, ('type', 'channels'))
        self._integers(f'multiplier of {name}', [step['multiplier']], 0,
                       2**31 - 1, 1)
        self._integers(f'shift of {name}', [step['shift']], 1,
                       MAX_AVERAGE_SHIFT, 1)
        self._low(step, name, target)

    def _check_sum(self, step, name, target):
        self._require(len(step['inputs']) == 2,
                      f'{name} sums {len(step["inputs"])} maps, expected 2')
        for source in step['inputs']:
            self._require(source != self.network.image,
                          f'{name} sums the picture')
            self._same(name, self._source(step, source), target,
                       ('type', 'channels'))
        self._residual(f'multipliers of {name}', step['multipliers'])
        self._low(step, name, target)
