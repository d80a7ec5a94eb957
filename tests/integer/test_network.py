"""The file of an integer network, and what is refused."""
import copy
import json
import zipfile

import numpy as np
import pytest
from random_networks import classifier, pyramid

from mmadder.errors import InputError
from mmadder.integer import IntegerNetwork
from mmadder.integer.network import FORMAT, VERSION


def header_of(network):
    return copy.deepcopy(dict(
        image=network.image, size=network.size, maps=network.maps,
        steps=network.steps, outputs=network.outputs))


def write(path, header, **arrays):
    text = json.dumps(header).encode()
    np.savez(path, header=np.frombuffer(text, np.uint8), **arrays)


def test_a_file_comes_back(tmp_path):
    network = classifier()
    network.model['classes'] = ['a', 'ü']
    network.save(tmp_path / 'net.npz')
    assert [p.name for p in tmp_path.iterdir()] == ['net.npz']
    again = IntegerNetwork.load(tmp_path / 'net.npz')
    assert header_of(again) == header_of(network)
    assert again.model == network.model
    assert again.arrays.keys() == network.arrays.keys()
    for name, array in network.arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)


def test_sizes_follow_the_steps():
    network = pyramid()
    sizes = network.sizes((45, 61))
    assert sizes['image'] == (45, 61) and sizes['map_1'] == (23, 31)
    assert sizes[network.outputs['output_0']] == (12, 16)
    with pytest.raises(InputError, match=r'picture of \(2, 5\) \(h, w\) is '
                       'too small'):
        no_padding = classifier()
        no_padding.steps[0]['padding'] = [0, 0]
        no_padding.sizes((2, 5))


def test_values_of_codes():
    network = pyramid()
    name, source = next(iter(network.outputs.items()))
    entry = network.maps[source]
    codes = np.full((1, entry['channels'], 1, 1), entry['zero_point'] + 3
                    if entry['zero_point'] < 250 else 250, np.uint8)
    expected = (int(codes[0, 0, 0, 0]) - entry['zero_point']) * entry['scale']
    np.testing.assert_allclose(network.values(name, codes), expected,
                               rtol=1e-6)
    name, source = list(network.outputs.items())[1]
    scale = network.maps[source]['scale']
    found = network.values(name, np.full((2, len(scale), 1, 1), -7))
    np.testing.assert_allclose(found[1, :, 0, 0], -7 * np.float64(scale),
                               rtol=1e-6)


@pytest.mark.parametrize('content, message', [
    (None, 'no such file'),
    (b'', 'is no integer network, or damaged'),
    (b'PK\x03\x04 half a zip', 'is no integer network, or damaged'),
    (dict(format='something'), 'is no integer network; tools/export_int'),
    ([1, 2], 'is no integer network; tools/export_int'),
    (dict(format=FORMAT, version=VERSION + 1),
     f'of version {VERSION + 1}, this mmadder reads version {VERSION}'),
    (dict(format=FORMAT, version=VERSION), "damaged: KeyError 'image'"),
])
def test_other_files(tmp_path, content, message):
    path = tmp_path / 'net.npz'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    with pytest.raises(InputError, match=message):
        IntegerNetwork.load(path)


def test_files_of_another_kind(tmp_path):
    array = tmp_path / 'array.npz'
    with open(array, 'wb') as file:
        np.save(file, np.arange(3))
    packed = tmp_path / 'packed.npz'
    np.savez_compressed(packed, header=np.zeros(5000, np.uint8),
                        x=np.random.default_rng(0).random(5000))
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 255
    packed.write_bytes(content)
    for path in (array, packed):
        with pytest.raises(InputError, match='is no integer network'):
            IntegerNetwork.load(path)


def test_a_file_is_data_only(tmp_path):
    path = tmp_path / 'net.npz'
    np.savez(path, header=np.array([dict(a=1)], object))
    with pytest.raises(InputError, match='damaged'):
        IntegerNetwork.load(path)


@pytest.mark.parametrize('damage', ['shape', 'method', 'nested', 'number'])
def test_hostile_files(tmp_path, damage):
    path = tmp_path / 'net.npz'
    header = header_of(classifier())
    if damage == 'shape':  # an array of nine terabytes
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('header.npy', b'\x93NUMPY\x01\x00v\x00' + str(dict(
                descr='|u1', fortran_order=False, shape=(10**13, ))).encode(
                ).ljust(117) + b'\n')
    elif damage == 'method':
        write(path, header)
        content = path.read_bytes()
        place = content.index(b'PK\x01\x02') + 10
        path.write_bytes(content[:place] + b'c\0' + content[place + 2:])
    else:
        text = '[' * 10**5 if damage == 'nested' else json.dumps(
            dict(header, size=0)).replace('"size": 0', f'"size": {"1" * 5000}')
        np.savez(path, header=np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(InputError, match='net.npz'):
        IntegerNetwork.load(path)


def test_size_may_be_a_tuple():
    network = classifier()
    header = dict(header_of(network), size=(29, 41))
    assert IntegerNetwork(header, network.arrays).size == [29, 41]


def change(*keys, to):
    """A function that sets one entry of a header."""
    def apply(header):
        *path, last = keys
        for key in path:
            header = header[key]
        header[last] = to
    return apply


@pytest.mark.parametrize('damage, message', [
    (change('size', to=[0, 5]), 'size must be 2 integers from 1'),
    (change('maps', 'map_1', 'type', to='float'), 'is of type float'),
    (change('maps', 'map_1', 'scale', to=0.), 'scale of map_1 must be pos'),
    (change('maps', 'map_1', 'scale', to=float('nan')), 'scale of map_1'),
    (change('maps', 'map_1', 'highest', to=256), 'highest of map_1'),
    (change('maps', 'map_1', 'zero_point', to=-1), 'zero_point of map_1'),
    (change('maps', 'image', 'zero_point', to=[1, 2]), 'zero_point of image'),
    (change('maps', 'map_9', 'scale', to=[1.]), 'scale of map_9'),
    (change('maps', 'extra', to=dict(
        type='uint8', channels=1, scale=1., zero_point=0, highest=1)),
     r"no step writes \['extra'\]"),
    (change('outputs', to={}), 'no outputs'),
    (change('outputs', 'a', to='image'), 'output a is of image'),
    (change('steps', 0, 'kind', to='softmax'), 'map_1 is a step of kind sof'),
    (change('steps', 0, 'input', to='map_4'), 'map_1 reads map_4, which no'),
    (change('steps', 1, 'output', to='map_1'), 'map_1 is written twice'),
    (change('steps', 0, 'stride', to=[1, 0]), 'stride of map_1 must be 2'),
    (change('steps', 0, 'padding', to=[True, 0]), 'padding of map_1'),
    (change('steps', 0, 'shift', to=63), 'shift of map_1'),
    (change('steps', 0, 'low', to=256), 'low of map_1'),
    (change('steps', 0, 'weight', to='nothing'), 'no array nothing'),
    (change('steps', 1, 'padding', to=[2, 2]), 'more than half its kernel'),
    (change('steps', 2, 'input', to='image'), r'map_3/weight is \(10, 10'),
    (change('steps', 2, 'center', to=1), 'center of map_3'),
    (change('steps', 3, 'residual_multiplier', to=2**21), 'residual_mult'),
    (change('steps', 3, 'residual', to='image'), 'residual image of map_4'),
    (change('steps', -2, 'shift', to=41), 'shift of map_8'),
    (change('steps', -2, 'input', to='image'), 'map_8 is the average of the'),
    (change('steps', 1, 'input', to='image'), 'of map_2 is'),
    (change('steps', 0, to={}), "header is damaged: KeyError 'output'"),
    (change('steps', -1, 'residual', to='nothing'),
     r"convolution that writes int32, has no \['residual'\]"),
    (change('steps', 0, 'kernel', to=[1, 1]), r"has no \['kernel'\]"),
    (change('steps', 1, 'inputs', to=['map_1']), r"has no \['inputs'\]"),
    (change('model', to=[1]), r'model must be an object, got \[1\]'),
    (change('maps', 'map_1', 'scale', to=10**400), 'damaged: OverflowError'),
])
def test_headers_that_cannot_be_run(damage, message):
    network = classifier()
    header = header_of(network)
    damage(header)
    with pytest.raises(InputError, match=message):
        IntegerNetwork(header, network.arrays)


@pytest.mark.parametrize('name, array, message', [
    ('map_3/weight', np.zeros((10, 10, 3, 3), np.int8), 'must be uint8'),
    ('map_3/weight', np.zeros((10, 9, 3, 3), np.uint8), 'expected'),
    ('map_3/multiplier', np.zeros(10, np.int64), 'must be int32'),
    ('map_3/multiplier', np.zeros(9, np.int32), r'int32 of \(10,\)'),
    ('map_3/bias', np.full(10, 2**29, np.int32), 'bias must lie within'),
    ('map_9/bias', np.full(10, 2**30, np.int32), 'exceed 30 bits'),
])
def test_arrays_that_cannot_be_run(name, array, message):
    network = classifier()
    with pytest.raises(InputError, match=message):
        IntegerNetwork(header_of(network), {**network.arrays, name: array})


def test_sums_that_overflow():
    network = classifier()
    header, arrays = header_of(network), dict(network.arrays)
    header['maps']['image']['channels'] = 2**10
    header['maps']['image']['zero_point'] = [0] * 2**10
    arrays['map_1/weight'] = np.full((10, 2**10, 9, 9), 127, np.int8)
    with pytest.raises(InputError, match='sums of map_1 exceed 31 bits'):
        IntegerNetwork(header, arrays)
