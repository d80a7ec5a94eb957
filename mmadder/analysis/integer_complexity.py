"""Operations, memory and energy of a network of integers, step by step.

What docs/integer_format.md computes, in the widths that it names: terms of
codes, sums of 32 bits. A term of an adder is a subtraction of codes, one of a
convolution a multiplication of codes; each is added to a sum. Centering takes
two additions per output; requantization three, a shortcut two more. Shifts,
comparisons and signs count nothing; pooling counts its comparisons as
additions of codes.
"""
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmadder.integer import IntegerNetwork
from mmadder.integer.costs import map_memory, multiplications, needed_steps

from . import complexity

INT8 = complexity.ENERGY_PJ['int8']
# Picojoules, of the same source: of codes an addition per bit, since an adder
# of fewer than 8 is taken in proportion to its width; of int32.
ENERGY_PJ = dict(code_multiplications=INT8['multiplication'],
                 code_additions=INT8['addition'] / 8,
                 multiplications=3.1, additions=.1)
COLUMNS = dict(
    bits='bits', code_multiplications='x codes', code_additions='+ codes',
    multiplications='x int32', additions='+ int32', weight_bytes='weights B',
    map_bytes='map B', energy_uJ='uJ')


def count_integers(network: IntegerNetwork,
                   size: Sequence[int]) -> dict[str, Any]:
    """Count what one picture costs.

    Args:
        network: any integer network.
        size: (height, width) of the picture in pixels.

    Returns:
        In total: 'code_multiplications' and 'code_additions', of codes;
        'multiplications' and 'additions', of int32; 'weight_bytes', where
        each code takes its bits only, with multipliers and biases;
        'energy_uJ' (float, microjoules). 'map_bytes' of all maps of codes at
        a time, which share memory. The same for each step under 'steps',
        with 'name', 'kind' and the 'bits' of the codes that it reads.
        'largest_map', its name; 'input_shape', the size.
    Raises:
        InputError: the picture is too small.
    """
    shapes = {name: (network.maps[name]['channels'], *extent)
              for name, extent in network.sizes(size).items()}
    steps = needed_steps(network)
    rows = [_row(network, step, shapes) for step in steps]
    stored = set()
    for step, row in zip(steps, rows):  # what levels share is stored once
        label = network.label(step, 'weight')
        if label in stored:
            row['weight_bytes'] -= _code_bytes(network, step)
        stored.add(label)
    largest = max(rows, key=lambda row: row['map_bytes'])
    summed = 'weight_bytes', 'energy_uJ', *ENERGY_PJ
    return dict(
        {key: sum(row[key] for row in rows) for key in summed},
        map_bytes=map_memory(network, shapes)[1],
        largest_map=largest['name'], input_shape=list(size), steps=rows)


def table_of_integers(
        counts: Mapping[str, Any]) -> tuple[tuple, list[tuple]]:
    """Return header and rows: steps, a gap, and the total."""
    def line(name, row):
        return (name, *(
            '' if row.get(key) is None else f'{row[key]:,}'
            if isinstance(row[key], int) else f'{row[key]:,.3f}'
            for key in COLUMNS))

    return ('step', *COLUMNS.values()), [
        *(line(f'{row["name"]} ({row["kind"]})', row)
          for row in counts['steps']),
        (), line('total', counts)]


def _row(network, step, shapes):
    shape = shapes[step['output']]
    outputs, positions = math.prod(shape), math.prod(shape[1:])
    target = network.maps[step['output']]
    sources = [network.maps[name] for name in IntegerNetwork.sources(step)]
    row = dict(
        name=step['output'], kind=step['kind'],
        bits=sources[0]['highest'].bit_length(),
        **dict.fromkeys(ENERGY_PJ, 0), weight_bytes=0,
        map_bytes=outputs * (4 if target['type'] == 'int32' else 1))
    count = {
        'adder': _layer, 'convolution': _layer, 'max_pool': _max_pool,
        'average': _average, 'sum': _sum}[step['kind']]
    row.update(count(network, step, shapes, outputs, positions))
    energy = dict(ENERGY_PJ, code_additions=(
        ENERGY_PJ['code_additions'] * row['bits']))
    row['energy_uJ'] = sum(row[key] * energy[key] for key in energy) * 1e-6
    return row


def _layer(network, step, shapes, outputs, positions):
    weight = network.array(step, 'weight')
    terms = outputs * math.prod(weight.shape[1:])
    kind = 'code_additions' if step['kind'] == 'adder' else \
        'code_multiplications'
    is_number = network.maps[step['output']]['type'] == 'int32'
    behind = 1 if is_number else (
        3 + 2 * bool(step.get('center'))
        + 2 * (step.get('residual') is not None))
    return {kind: terms, 'additions': terms + behind * outputs,
            'multiplications': positions * multiplications(network, step),
            'weight_bytes': _code_bytes(network, step)
            + 4 * len(weight) * (1 if is_number else 2)}


def _code_bytes(network, step):
    bits = 8
    if step['kind'] == 'adder':
        bits = network.maps[step['input']]['highest'].bit_length()
    return math.ceil(network.array(step, 'weight').size * bits / 8)


def _max_pool(network, step, shapes, outputs, positions):
    return dict(code_additions=outputs * (math.prod(step['kernel']) - 1))


def _average(network, step, shapes, outputs, positions):
    taps = math.prod(shapes[step['input']])
    return dict(additions=taps + 2 * outputs, multiplications=outputs)


def _sum(network, step, shapes, outputs, positions):
    return dict(additions=5 * outputs, multiplications=2 * outputs)
