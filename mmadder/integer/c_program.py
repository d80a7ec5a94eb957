"""An integer network as a C99 program: one source file and its weights.

The steps are written in ``c_program.c``; what is generated for a network are
the sizes, the table of its steps and the arrays. Nothing is allocated: maps
share one array, in which a map's place is free again behind its last reader.
"""
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmadder.errors import InputError
from mmadder.files import whole_file

from .c_text import comment, identifiers, int32, strings, wrapped
from .costs import is_power, map_memory, multiplications, needed_steps
from .network import FRACTION, IntegerNetwork

SOURCE, HEADER = 'network.c', 'network.h'
# Bytes of a window and a filter that the program takes at a time, a fixed
# number, which compilers vectorize; and windows that a filter is taken to.
BLOCK, PIXELS = 32, 4
LONGEST_STRING = 4095 // BLOCK * BLOCK  # C99 promises 4095 characters
MOST_BYTES = 2**31 - 1


@dataclass
class CProgram:
    """What was written, and what it needs.

    Attributes:
        source, header: the files.
        map_bytes: of all maps between the picture and the outputs.
        work_bytes: of one group of windows and its sums.
        weight_bytes: of weights and other arrays, which are constant.
        multipliers: {map of an adder: multiplications left for each of its
            positions}; 0 where all factors are powers of two.
    """
    source: Path
    header: Path
    map_bytes: int = 0
    work_bytes: int = 0
    weight_bytes: int = 0
    multipliers: dict[str, int] = field(default_factory=dict)

    def __str__(self):
        left = {name: count for name, count in self.multipliers.items()
                if count}
        found = [
            f'{self.source} and {self.header.name}: {self.map_bytes} bytes of '
            f'maps, {self.work_bytes} of work, {self.weight_bytes} of weights',
            f'{len(self.multipliers)} adders, '
            f'{len(left) or "none"} of them with multipliers']
        return '\n'.join(found + [
            f'  {name}: {count} multiplications for each position'
            for name, count in left.items()])


def write_c_program(network: IntegerNetwork, folder: str | Path,
                    size: tuple[int, int] | None = None) -> CProgram:
    """Write ``network.c`` and ``network.h``.

    Args:
        network: any integer network.
        folder: for the two files, both of which are written whole, or none.
        size: (H, W) of its pictures; default: what the network says.

    Returns:
        Names and needs of the program.
    Raises:
        InputError: the network takes pictures of another size, or any and
            none was given; they are too small, or the maps too large; the
            folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder} is a file, expected a folder for '
                         f'{SOURCE} and {HEADER}')
    program = _Program(network, _size(network, size), CProgram(
        folder / SOURCE, folder / HEADER))
    source, header = program.source(), program.header()
    result = program.result
    with whole_file(result.header) as h, whole_file(result.source) as c:
        h.write_text(header, encoding='ascii')
        c.write_text(source, encoding='ascii')
    return result


def _size(network, size):
    if size is None:
        if network.size is None:
            raise InputError('this integer network takes pictures of any '
                             'size, a C program of one: give its size')
        size = network.size
    size = tuple(map(int, size))
    if len(size) != 2 or min(size) < 1 or max(size) > 2**15:
        raise InputError(
            f'size must be two numbers from 1 to {2**15}, got {size}')
    return size


def channel_order(network: IntegerNetwork) -> str:
    """'RGB' or 'BGR', the order that a network takes its picture in."""
    default = 'RGB' if network.model.get('to_rgb', True) else 'BGR'
    order = network.model.get('channel_order', default)
    if order not in ('RGB', 'BGR'):
        raise InputError(f'channel_order of an integer network is {order}, '
                         'expected RGB or BGR')
    return order


class _Program:
    """The texts of a program."""

    def __init__(self, network, size, result):
        self.network, self.size, self.result = network, size, result
        self.shapes = {
            name: (network.maps[name]['channels'], *extent)
            for name, extent in network.sizes(size).items()}
        self.steps = needed_steps(network)
        self.members = identifiers(network.outputs)
        self.arrays, self.tables, self.calls = [], [], []
        self.weights = {}
        self.lengths = dict(adder=0, convolution=0)
        self.places, result.map_bytes = map_memory(network, self.shapes)
        self._require_memory()
        for step in self.steps:
            self._add(step)
        widest = max((self.shapes[step['output']][0] for step in self.steps
                      if step['kind'] in self.lengths), default=0)
        self.filters = widest
        result.work_bytes = PIXELS * (
            4 * widest + self.lengths['adder']
            + 2 * self.lengths['convolution'])

    def _require_memory(self):
        largest = max(self.result.map_bytes, *(
            math.prod(shape) * 4 for shape in self.shapes.values()))
        if largest > MOST_BYTES:
            raise InputError(
                f'pictures of {self.size} (h, w) need maps of {largest} bytes'
                f', a C program has up to {MOST_BYTES}: give a smaller size')

    # ------------------------------------------------------------ the steps --

    def _add(self, step):
        name = step['output']
        label = f'step_{len(self.tables) + 1}'
        kind = step['kind']
        is_number = self.network.maps[name]['type'] == 'int32'
        kinds = dict(adder=self._layer, convolution=self._layer,
                     max_pool=self._max_pool, average=self._average,
                     sum=self._sum)
        type_, fields = kinds[kind](step, label)
        shape = ' x '.join(map(str, self.shapes[name]))
        self.tables.append(
            f'// {comment(name)}: {kind}, {shape}.\n'
            f'static const struct {type_} {label} = {{\n{fields}}};\n')
        arguments = list(map(self._map, IntegerNetwork.sources(step)))
        if kind in ('adder', 'convolution') and not is_number and \
                len(arguments) == 1:
            arguments.append('NULL')
        members = [f'outputs->{self.members[output]}[0][0]'
                   for output, source in self.network.outputs.items()
                   if source == name]
        if is_number:
            for member in members:
                self.calls.append(
                    f'convolution_numbers(&{label}, {arguments[0]}, '
                    f'{member});')
            return
        self.calls.append(
            f'{kind}(&{label}, {", ".join(arguments)}, {self._map(name)});')
        channels, height, width = self.shapes[name]
        for member in members:
            self.calls.append(f'planes({self._map(name)}, {channels}, '
                              f'{height * width}, {member});')

    def _map(self, name):
        return 'image' if name == self.network.image else \
            f'maps + {self.places[name]}'

    def _windows(self, step, kernel):
        channels, *size = self.shapes[step['input']]
        sizes = dict(
            {'in': size}, out=self.shapes[step['output']][1:], kernel=kernel,
            stride=step['stride'], padding=step['padding'],
            dilation=step.get('dilation', (1, 1)))
        return [f'.channels = {channels}'] + [
            f'.{name} = {{{h}, {w}}}' for name, (h, w) in sizes.items()]

    def _max_pool(self, step, label):
        return 'windows', wrapped(self._windows(step, step['kernel']))

    def _codes(self, step):
        target = self.network.maps[step['output']]
        return [f".out_zero = {target['zero_point']}", f".low = {step['low']}",
                f".high = {target['highest']}"]

    def _average(self, step, label):
        channels, height, width = self.shapes[step['input']]
        zero = self.network.maps[step['input']]['zero_point']
        return 'average', wrapped([
            f'.channels = {channels}', f'.positions = {height * width}',
            f'.in_zero = {zero}', *self._codes(step),
            f".multiplier = {step['multiplier']}",
            f".shift = {step['shift']}"])

    def _sum(self, step, label):
        found = [f".channels = {self.shapes[step['output']][0]}"]
        for side, name, multiplier in zip(
                ('left', 'right'), step['inputs'], step['multipliers']):
            height, width = self.shapes[name][1:]
            zero = self.network.maps[name]['zero_point']
            found += [f'.{side} = {{{height}, {width}}}',
                      f'.{side}_zero = {zero}',
                      f'.{side}_multiplier = {multiplier}']
        return 'sum', wrapped(found + self._codes(step))

    def _layer(self, step, label):
        network = self.network
        source, target = (network.maps[step[key]]
                          for key in ('input', 'output'))
        weight = network.array(step, 'weight')
        windows = self._windows(step, weight.shape[2:])
        place, pieces, piece = self._weight(step, label, weight)
        self.lengths[step['kind']] = max(
            self.lengths[step['kind']], pieces * piece)
        self._numbers(label, 'bias', network.array(step, 'bias'))
        zero = source['zero_point']
        found = [
            '.windows = {\n' + wrapped(windows, indent=8) + '    }',
            f'.filters = {len(weight)}', f'.pieces = {pieces}',
            f'.piece = {piece}',
            f'.weight = (const unsigned char *){place}',
            f'.bias = {label}_bias',
            '.zeros = picture_zeros' if isinstance(zero, list)
            else f'.in_zero = {zero}']
        if target['type'] == 'int32':
            return 'layer', wrapped(found)
        found += self._scaling(step, label) + self._codes(step)
        if step.get('residual') is not None:
            residual = network.maps[step['residual']]
            factor = step['residual_multiplier']
            found += ['.has_residual = 1',
                      f".residual_zero = {residual['zero_point']}",
                      f'.residual = {self._factor(step, factor)}']
        return 'layer', wrapped(found)

    def _scaling(self, step, label):
        """Center and requantization; an adder does with shifts if it can."""
        multiplier = self.network.array(step, 'multiplier').astype(np.int64)
        found, shift = [], step['shift']
        if step['kind'] == 'adder':
            self.result.multipliers[step['output']] = multiplications(
                self.network, step)
            if step['center']:
                found.append('.is_centered = 1')
            found.append('.center = ' + self._factor(
                step, len(multiplier) if step['center'] else 1))
            if all(map(is_power, multiplier.tolist())):
                self._powers(label, multiplier.tolist(), shift)
                return [*found, f'.power = {label}_power']
        self._numbers(label, 'multiplier', multiplier)
        return [*found, f'.multiplier = {label}_multiplier',
                f'.shift = {shift}']

    def _factor(self, step, factor):
        if step['kind'] == 'adder' and is_power(factor):
            sign, left = _power(factor)
            return f'{{{sign}, {left}, 0}}'
        return f'{{0, 0, {factor}}}'

    # ----------------------------------------------------------- the arrays --

    def _weight(self, step, label, weight):
        """(name, pieces of a filter, bytes of a piece); shared ones once.

        Strings compile twenty times as fast as lists of numbers.
        """
        own = self.network.label(step, 'weight')
        if own in self.weights:
            return self.weights[own]
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        pieces = -(-rows.shape[1] // LONGEST_STRING)
        piece = -(-rows.shape[1] // pieces // BLOCK) * BLOCK
        padded = np.zeros((len(rows), pieces * piece), np.uint8)
        padded[:, :rows.shape[1]] = rows.view(np.uint8)
        lines = ',\n'.join(
            strings(row.rstrip(b'\0'))
            for row in map(bytes, padded.reshape(-1, piece)))
        self.arrays.append(
            f'static const unsigned char {label}_weight'
            f'[{len(rows) * pieces}][{piece + 1}] = {{\n{lines}}};\n')
        self.result.weight_bytes += len(rows) * pieces * (piece + 1)
        self.weights[own] = f'{label}_weight', pieces, piece
        return self.weights[own]

    def _numbers(self, label, name, values):
        self.arrays.append(
            f'static const int32_t {label}_{name}[{len(values)}] = {{\n'
            f'{wrapped(map(int32, values.tolist()))}}};\n')
        self.result.weight_bytes += 4 * len(values)

    def _powers(self, label, multiplier, shift):
        powers = [_power(factor) for factor in multiplier]
        self.arrays.append(
            f'static const struct mmadder_power {label}_power'
            f'[{len(powers)}] = {{\n' + wrapped(
                f'{{{sign}, {shift - left}}}' for sign, left in powers)
            + '};\n')
        self.result.weight_bytes += 2 * len(powers)

    # ------------------------------------------------------------ the texts --

    def header(self):
        network = self.network
        (height, width), order = self.size, channel_order(network)
        channels = network.maps[network.image]['channels']
        members, scales = [], []
        for name, member in self.members.items():
            entry = network.maps[network.outputs[name]]
            c, h, w = self.shapes[network.outputs[name]]
            is_number = entry['type'] == 'int32'
            what = 'scale of its channel x number' if is_number else \
                f"{entry['scale']!r} (code - {entry['zero_point']})"
            members.append(f'  // {comment(name)}: value = {what}.\n'
                           f"  {entry['type']}_t {member}[{c}][{h}][{w}];\n")
            if is_number:
                scales.append(
                    f'extern const double mmadder_{member}_scale[{c}];\n')
        zeros = network.maps[network.image]['zero_point']
        return _HEADER.format(
            order=order, channels=channels, height=height, width=width,
            members=''.join(members), scales=''.join(scales),
            zeros=wrapped(map(str, zeros)), arrays='\n'.join(self.arrays))

    def source(self):
        network, result = self.network, self.result
        used = {step['kind'] for step in self.steps}
        types = {network.maps[step['output']]['type'] for step in self.steps
                 if step['kind'] == 'convolution'}
        outputs = {network.maps[name]['type']
                   for name in network.outputs.values()}
        sizes = dict(
            FRACTION=FRACTION, BLOCK=BLOCK, PIXELS=PIXELS,
            MAP_BYTES=result.map_bytes, WORK_BYTES=result.work_bytes,
            MOST_FILTERS=self.filters, MOST_CODES=self.lengths['adder'],
            MOST_VALUES=self.lengths['convolution'],
            USES_ADDER='adder' in used, USES_CONVOLUTION='uint8' in types,
            USES_NUMBERS='int32' in types, USES_MAX_POOL='max_pool' in used,
            USES_AVERAGE='average' in used, USES_SUM='sum' in used,
            USES_PLANES='uint8' in outputs,
            ADDER_PRODUCTS=any(result.multipliers.values()),
            PICTURE_IS_BGR=channel_order(network) == 'BGR')
        lines = [f'#define {name} {int(value)}\n'
                 for name, value in sizes.items()]
        lines.append(f'#define PICTURE_ORDER "{channel_order(network)}"\n')
        text = Path(__file__).with_suffix('.c').read_text(encoding='ascii')
        for mark, replacement in dict(
                head=_HEAD.format(height=self.size[0], width=self.size[1]),
                sizes=''.join(lines), steps=self._network(),
                outputs=self._outputs()).items():
            text = text.replace(f'/* @{mark} */\n', replacement)
        return text

    def _network(self):
        scales = [
            f'const double mmadder_{member}_scale[{len(entry["scale"])}] = '
            f'{{\n{wrapped(map(repr, map(float, entry["scale"])))}}};\n'
            for member, entry in (
                (member, self.network.maps[self.network.outputs[name]])
                for name, member in self.members.items())
            if entry['type'] == 'int32']
        calls = ''.join(f'  {call}\n' for call in self.calls)
        return '\n'.join([*self.tables, *scales]) + (
            '\nint mmadder_run(const uint8_t *image, mmadder_outputs *outputs'
            ') {\n  if (image == NULL || outputs == NULL) {\n    return -1;\n'
            f'  }}\n{calls}  return 0;\n}}\n')

    def _outputs(self):
        rows = []
        for name, member in self.members.items():
            source = self.network.outputs[name]
            c, h, w = self.shapes[source]
            values = f'outputs.{member}[0][0]'
            pair = f'{values}, NULL' if \
                self.network.maps[source]['type'] == 'uint8' \
                else f'NULL, {values}'
            rows.append(f'    {{{strings(name.encode())}, {c}, {h}, {w}, '
                        f'{pair}}},\n')
        return 'static const struct output tensors[] = {\n' + \
            ''.join(rows) + '};\n' + self._classes()

    def _classes(self):
        name = self.network.outputs.get('logits')
        if name is None or self.network.maps[name]['type'] != 'int32' or \
                self.shapes[name][1:] != (1, 1):
            return ''
        count, member = self.shapes[name][0], self.members['logits']
        classes = self.network.model.get('classes') or ()
        if len(classes) != count:
            classes = [''] * count
        names = ',\n'.join(
            '    ' + strings(str(text).encode()).lstrip() for text in classes)
        return (
            f'static const char *const classes[] = {{\n{names}}};\n'
            f'#define LOGITS (&outputs.{member}[0][0][0])\n'
            f'#define LOGITS_SCALE mmadder_{member}_scale\n'
            f'#define LOGITS_CLASSES {count}\n')


def _power(factor):
    """(sign, exponent)."""
    return (factor > 0) - (factor < 0), max(abs(factor).bit_length() - 1, 0)


_HEAD = '''\
// An integer network of mmadder for pictures of {width} x {height}
// (width x height), generated.
//
//     cc -std=c99 -O2 -o network network.c
//     ./network PICTURE.ppm OUTPUT.bin
//
// With -DMMADDER_NO_MAIN there is no program around it; network.h has the
// interface.
'''
_HEADER = '''\
// The interface of network.c, and its arrays, generated by mmadder.
#ifndef MMADDER_NETWORK_H
#define MMADDER_NETWORK_H
#include <stdint.h>

#define MMADDER_CHANNELS {channels}
#define MMADDER_HEIGHT {height}
#define MMADDER_WIDTH {width}

// (channels, height, width).
typedef struct {{
{members}}} mmadder_outputs;

{scales}
// Runs the network on one picture, (height, width, channels), {order}.
// Returns 0, or -1 without pointers. Not for two threads at a time.
int mmadder_run(const uint8_t *image, mmadder_outputs *outputs);

#ifdef MMADDER_WEIGHTS
// Multiplication by sign / 2^right.
struct mmadder_power {{
  signed char sign, right;
}};

static const uint8_t picture_zeros[MMADDER_CHANNELS] = {{
{zeros}}};

{arrays}
#endif
#endif
'''
