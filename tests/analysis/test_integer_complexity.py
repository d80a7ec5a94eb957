"""Counts of a network of integers, by hand."""
import json

import pytest
from random_networks import Builder, classifier, shift_only

from mmadder.analysis.integer_complexity import (
    count_integers,
    table_of_integers,
)
from mmadder.errors import InputError


def network(highest=15):
    """Stem, an adder with a shortcut, pooling, two layers of one weight."""
    b = Builder(highest=highest)
    x = b.convolution('image', 8, stride=(2, 2), zero_point=0)
    x = b.adder(x, 8, center=True, residual=x)
    x = b.max_pool(x)
    x = b.sum(x, x)
    y = b.convolution(x, 8, zero_point=0)
    z = b.convolution(y, 8, zero_point=0)
    b.steps[-1]['weight'] = f'{y}/weight'
    del b.arrays[f'{z}/weight']
    b.output(b.convolution(b.average(z), 5, kernel=(1, 1), padding=(0, 0),
                           accumulate=True))
    b.convolution(x, 8)  # that no output needs
    return b.build()


def test_by_hand():
    """A picture of 12x16: maps of 6x8, then 3x4."""
    counts = count_integers(network(), (12, 16))
    stem, adder, pool, sum_, one, two, average, linear = counts['steps']
    assert [row['bits'] for row in counts['steps']] == [8, *[4] * 7]
    assert stem['code_multiplications'] == 48 * 8 * 27
    assert stem['additions'] == 48 * 8 * (27 + 3)
    assert stem['multiplications'] == 48 * 8
    assert stem['weight_bytes'] == 8 * 27 + 2 * 4 * 8
    assert stem['map_bytes'] == 48 * 8
    assert adder['code_additions'] == 48 * 8 * 72
    assert adder['code_multiplications'] == 0
    assert adder['additions'] == 48 * 8 * (72 + 3 + 2 + 2)
    assert adder['multiplications'] == 48 * 8 * 2  # 8 filters: a shift
    assert adder['weight_bytes'] == 8 * 72 / 2 + 2 * 4 * 8
    assert adder['energy_uJ'] == pytest.approx(1e-6 * (
        48 * 8 * (72 * .015 + 79 * .1 + 2 * 3.1)))
    assert pool['code_additions'] == 12 * 8 * 8
    assert (sum_['multiplications'], sum_['additions']) == (192, 480)
    assert one['weight_bytes'] == 8 * 72 + 64 and two['weight_bytes'] == 64
    assert average['additions'] == 12 * 8 + 2 * 8
    assert linear['code_multiplications'] == 40
    assert (linear['additions'], linear['multiplications']) == (45, 0)
    assert linear['map_bytes'] == 20
    for key in ('additions', 'code_additions', 'weight_bytes', 'energy_uJ'):
        assert counts[key] == sum(row[key] for row in counts['steps'])
    assert counts['map_bytes'] == 2 * 48 * 8  # stem and adder
    assert counts['largest_map'] == stem['name']


def test_shifts_count_nothing():
    with_factors, without = (
        sum(row['multiplications'] for row in count_integers(
            network, (29, 41))['steps'] if row['kind'] == 'adder')
        for network in (classifier(widths=(8, 16)), shift_only()))
    assert with_factors > without == 0


def test_too_small_a_picture():
    b = Builder()
    b.output(b.convolution('image', 2, kernel=(9, 9)))
    with pytest.raises(InputError, match='too small'):
        count_integers(b.build(), (4, 4))


def test_tool(call_tool, tmp_path, capsys):
    network().save(tmp_path / 'a.npz')
    call_tool('get_complexity.py', tmp_path / 'a.npz', '--shape', 12, 16,
              '--json', tmp_path / 'a.json')
    counts = json.loads((tmp_path / 'a.json').read_text())
    assert counts == count_integers(network(), (12, 16))
    printed = capsys.readouterr().out
    _, rows = table_of_integers(counts)
    assert all(value in printed for row in rows for value in row)
    call_tool('get_complexity.py', tmp_path / 'a.npz', code=2)
    assert '--shape HEIGHT WIDTH' in capsys.readouterr().err
    call_tool('get_complexity.py', tmp_path / 'a.npz', '--cfg-options', 'a=1',
              code=2)
    assert 'leave them out' in capsys.readouterr().err


def test_another_size():
    made = network()
    made.size = [12, 16]
    assert count_integers(made, (12, 16))['input_shape'] == [12, 16]
    with pytest.raises(InputError, match=r'takes pictures of \(12, 16\) only'):
        count_integers(made, (16, 12))
