"""Every byte of the native network is the oracle's."""
import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from geometries import GEOMETRIES, Geometry
from random_networks import Builder, classifier, pyramid

from mmadder.errors import InputError
from mmadder.integer import IntegerNetwork, NativeNetwork, integer_reference
from mmadder.integer.native import MOST_SIZES
from mmadder.ops import pack_weight

LAYERS = [g for g in GEOMETRIES if g.groups == 1] + [
    Geometry(1, 3, (5, 6), 70, (3, 3), padding=(1, 1)),
    Geometry(2, 4, (6, 33), 130, (1, 1)),
    Geometry(3, 36, (7, 8), 26, (3, 3), (2, 2), (1, 1)),
    Geometry(1, 33, (9, 5), 18, (1, 1), (2, 2)),
    Geometry(5, 200, (12, 15), 48, (3, 3), (1, 1), (1, 1))]


def pictures(batch, size, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, channels, *size), dtype=np.uint8)


def with_all_maps(network):
    """The network with every map as an output."""
    header = dict(
        image=network.image, size=network.size, maps=network.maps,
        steps=network.steps,
        outputs={name: name for name in network.maps
                 if name != network.image})
    return IntegerNetwork(header, network.arrays)


def check(network, images):
    """All maps, and those alone that are asked for; returns all."""
    network = getattr(network, 'build', lambda: network)()
    expected = integer_reference.run(network, images)
    everything = with_all_maps(network)
    actual = NativeNetwork(everything)(torch.from_numpy(images))
    for step in network.steps:  # the first that differs is to blame
        name = step['output']
        assert actual[name].numpy().dtype == expected[name].dtype
        np.testing.assert_array_equal(
            actual[name], expected[name], err_msg=str(step))
    outputs = NativeNetwork(network)(torch.from_numpy(images))
    assert outputs.keys() == network.outputs.keys()
    for name, source in network.outputs.items():
        np.testing.assert_array_equal(outputs[name], expected[source])
    return expected


# Networks -------------------------------------------------------------------


@pytest.mark.parametrize('highest', [255, 63, 15])
@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('make, batch, size', [
    (classifier, 1, (33, 50)), (classifier, 3, (61, 34)),
    (pyramid, 1, (38, 70)), (pyramid, 3, (41, 33))])
def test_networks(make, batch, size, center, highest):
    network = make(seed=batch, center=center, highest=highest)
    maps = check(network, pictures(batch, size))
    spread = [np.ptp(maps[step['output']]) > highest / 2 for step in
              network.steps if step['kind'] == 'adder']
    assert any(spread)  # else equality would say little


def test_a_real_picture(scene):
    network, image, maps = scene
    actual = NativeNetwork(with_all_maps(network))(torch.from_numpy(image))
    for step in network.steps:
        np.testing.assert_array_equal(
            actual[step['output']], maps[step['output']], err_msg=str(step))


@pytest.mark.parametrize('center', [False, True])
def test_shift_only(center):
    check(classifier(center=center, shift_only=True), pictures(2, (40, 31)))


@pytest.mark.parametrize('make', [classifier, pyramid])
def test_threads_do_not_change_a_bit(make):
    network = make(widths=(24, 130))
    images = torch.from_numpy(pictures(2, (70, 52)))
    native = NativeNetwork(network)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(native(images))
    finally:
        torch.set_num_threads(threads)
    expected = integer_reference.run(network, images.numpy())
    for name, source in network.outputs.items():
        for result in results:
            np.testing.assert_array_equal(result[name], expected[source])


def test_copies_and_threads():
    network, images = classifier(), torch.from_numpy(pictures(2, (33, 40)))
    native = NativeNetwork(network)
    expected = native(images)['output_0']
    assert torch.equal(copy.deepcopy(native)(images)['output_0'], expected)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(native, [images, images[:1]] * 20):
            assert torch.equal(found['output_0'],
                               expected[:len(found['output_0'])])


def test_no_pictures():
    native = NativeNetwork(classifier())
    output = native(torch.zeros(0, 3, 32, 40, dtype=torch.uint8))['output_0']
    assert output.shape == (0, 10, 1, 1) and output.dtype == torch.int32


def test_pictures_of_any_layout():
    network = classifier()
    images = torch.from_numpy(pictures(2, (33, 40)))
    native = NativeNetwork(network)
    expected = native(images)['output_0']
    strided = torch.stack([images, 255 - images], 4)[..., 0]
    for same in (images.to(memory_format=torch.channels_last), strided):
        assert torch.equal(native(same)['output_0'], expected)


def test_sizes_in_turn():
    """Plans are kept, dropped and made anew; their memory is not shared."""
    network = pyramid()
    native = NativeNetwork(network)
    for size in [(33 + 8 * i, 40) for i in range(MOST_SIZES + 1)] * 2:
        images = pictures(1, size)
        expected = integer_reference.run(network, images)
        for name, output in native(torch.from_numpy(images)).items():
            np.testing.assert_array_equal(
                output, expected[network.outputs[name]])
        assert len(native._plans) <= MOST_SIZES


def test_maps_share_memory_but_outputs_do_not():
    b = Builder()
    x = b.convolution('image', 8)
    for _ in range(6):
        x = b.adder(x, 8, zero_point=0)
    b.output(x)
    native = NativeNetwork(b.build())
    images = torch.from_numpy(pictures(1, (9, 8)))
    first = native(images)['output_0']
    kept = first.clone()
    native(255 - images)
    assert torch.equal(first, kept)
    (plan, ) = native._plans.values()
    assert sum(map(len, plan._free.values())) <= 4  # of seven maps


# Layers ---------------------------------------------------------------------


def layer(kind, geometry, highest=255, **options):
    """A network of one layer, behind a 1x1 convolution if it is an adder."""
    b = Builder(geometry.batch, highest=highest,
                channels=3 if kind == 'adder' else geometry.in_channels)
    source = 'image'
    if kind == 'adder':
        source = b.convolution(source, geometry.in_channels, kernel=(1, 1),
                               padding=(0, 0))
    stride, padding, dilation, _ = geometry.arguments
    target = getattr(b, kind)(
        source, geometry.out_channels, kernel=geometry.kernel, stride=stride,
        padding=padding, dilation=dilation, **options)
    b.output(target)
    return b, pictures(geometry.batch, geometry.size,
                       b.maps['image']['channels'])


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('geometry', LAYERS)
def test_adder(geometry, center):
    check(*layer('adder', geometry, center=center, relu=False))


@pytest.mark.parametrize('accumulate', [False, True])
@pytest.mark.parametrize('geometry', LAYERS)
def test_convolution(geometry, accumulate):
    check(*layer('convolution', geometry, accumulate=accumulate))


@pytest.mark.parametrize('kind', ['adder', 'convolution'])
@pytest.mark.parametrize('channels', [5, 64, 70])
def test_residual(kind, channels):
    b = Builder(channels)
    x = b.convolution('image', channels)
    y = b.convolution(x, channels)
    b.output(getattr(b, kind)(y, channels, residual=x))
    b.output(getattr(b, kind)(y, channels, residual=y, relu=False))
    check(b, pictures(2, (7, 9)))


def test_a_map_that_several_read_with_other_padding():
    b = Builder()
    x = b.convolution('image', 20)
    for padding in ((0, 0), (3, 1), (1, 4)):
        b.output(b.adder(x, 9, padding=padding))
    b.output(b.max_pool(x))
    b.output(b.convolution(x, 9, padding=(5, 5)))
    check(b, pictures(2, (11, 8)))


@pytest.mark.parametrize('pool', [
    ((3, 3), (2, 2), (1, 1)), ((2, 2), (2, 2), (0, 0)),
    ((1, 3), (2, 1), (0, 1)), ((5, 2), (1, 1), (2, 1)),
    ((1, 1), (2, 2), (0, 0))])
@pytest.mark.parametrize('size', [(9, 8), (5, 37)])
def test_max_pool(size, pool):
    b = Builder()
    for channels in (3, 80):
        b.output(b.max_pool(b.convolution('image', channels), *pool))
    check(b, pictures(2, size))


@pytest.mark.parametrize('stride', [(2, 2), (3, 2), (1, 4)])
@pytest.mark.parametrize('channels', [6, 66])
def test_sum(channels, stride):
    b = Builder()
    left = b.convolution('image', channels)
    right = b.convolution('image', channels, stride=stride)
    b.output(b.sum(left, right))
    b.output(b.sum(left, left, relu=True))
    b.output(b.sum(right, left))
    check(b, pictures(2, (7, 12)))


@pytest.mark.parametrize('channels', [6, 66])
def test_average(channels):
    b = Builder()
    for _ in range(3):
        b.output(b.average(b.convolution('image', channels)))
    b.steps[1].update(multiplier=2**31 - 1, shift=33)
    b.steps[3].update(multiplier=2**31 - 1, shift=40)
    b.steps[5].update(multiplier=0, shift=1)
    check(b, pictures(2, (7, 12)))


# Extremes -------------------------------------------------------------------

INT32 = -2**31, 2**31 - 1
BIAS = 2**29 - 2**14


@pytest.mark.parametrize('kind', ['adder', 'centered', 'convolution'])
@pytest.mark.parametrize('shift', [1, 2, 16, 31, 32, 33, 40, 61, 62])
def test_saturation(kind, shift):
    """t at its limits, and multipliers of any size."""
    center, channels = kind == 'centered', 72
    b = Builder(shift)
    x = b.convolution('image', 12)
    y = getattr(b, 'adder' if center else kind)(
        x, channels, residual=b.convolution('image', channels),
        relu=False, **(dict(center=True) if center else {}))
    b.output(y)
    sizes = b.rng.integers(0, 2**b.rng.integers(1, 32, channels))
    multiplier = sizes * b.rng.choice((-1, 1), channels)
    multiplier[:6] = *INT32, 0, 1, -1, 2**30
    # Some that bring acc to about the limits.
    spread = 40 * 108**.5 * (channels if center else 1)
    near = 2.**30 * 2.**shift / spread * b.rng.uniform(.2, 2, channels)
    multiplier[40:] = near.clip(*INT32)[40:]
    bias = b.rng.integers(-BIAS, BIAS + 1, channels)
    bias[::5], bias[1::5] = BIAS, -BIAS
    b.arrays[f'{y}/multiplier'] = multiplier.astype(np.int32)
    b.arrays[f'{y}/bias'] = bias.astype(np.int32)
    b.steps[-1].update(shift=shift)
    for residual_multiplier in (2**21 - 1, 1 - 2**21):
        b.steps[-1].update(residual_multiplier=residual_multiplier)
        maps = check(b, pictures(1, (9, 14)))
        assert len(np.unique(maps[y])) > 1


@pytest.mark.parametrize('kind', ['adder', 'centered', 'convolution'])
@pytest.mark.parametrize('zero_point, at_the_limit', [(20, 149), (200, 71)])
def test_t_ends_where_the_format_says(kind, zero_point, at_the_limit):
    """acc M beyond both limits of t, which bias and residual bring back."""
    center = kind == 'centered'
    b = Builder()
    x = b.convolution('image', 4, zero_point=0)
    residual = b.convolution('image', 6, zero_point=0)
    for name in (x, residual):  # all codes are 255
        b.arrays[f'{name}/bias'][:] = BIAS
    y = getattr(b, 'adder' if center else kind)(
        x, 6, residual=residual, zero_point=zero_point, relu=False,
        **(dict(center=True) if center else {}))
    b.output(y)
    b.arrays[f'{y}/multiplier'] = np.array(
        2 * [INT32[0], -INT32[1], INT32[1]], np.int32)
    b.arrays[f'{y}/bias'] = np.repeat([-BIAS, BIAS], 3).astype(np.int32)
    codes = set()
    for residual_multiplier in (1 - 2**21, 2**21 - 1):
        b.steps[-1].update(shift=1, residual_multiplier=residual_multiplier)
        codes |= set(check(b, pictures(1, (6, 5)))[y].ravel().tolist())
    assert codes == {0, at_the_limit, 255}


@pytest.mark.parametrize('weight', [-128, 127])
@pytest.mark.parametrize('accumulate', [False, True])
def test_largest_sums_of_a_convolution(weight, accumulate):
    channels = 3650 if accumulate else 7300  # 30 and 31 bits
    b = Builder(channels=channels)
    b.maps['image']['zero_point'] = [0] * channels
    y = b.convolution('image', 3, accumulate=accumulate)
    b.arrays[f'{y}/weight'] = np.full((3, channels, 3, 3), weight, np.int8)
    b.output(y)
    images = np.full((1, channels, 5, 4), 255, np.uint8)
    images[0, 0, 0, 0] = 7
    maps = check(b, images)
    if accumulate:
        assert np.abs(maps[y]).max() > .98 * 2**30


def test_largest_sums_of_a_centered_adder():
    """A filter far from all others."""
    b = Builder()
    x = b.convolution('image', 64, zero_point=0)
    y = b.adder(x, 2000, center=True, relu=False)
    b.output(y)
    weight = np.zeros((2000, 64, 3, 3), np.uint8)
    weight[7] = 255
    b.arrays[f'{y}/weight'] = weight
    b.arrays[f'{b.steps[0]["output"]}/bias'][:] = -BIAS
    check(b, pictures(1, (4, 5)))
    b.arrays[f'{y}/weight'] = 255 - weight
    check(b, pictures(1, (4, 5)))


# Errors ---------------------------------------------------------------------


@pytest.mark.parametrize('images, message', [
    (torch.zeros(1, 3, 32, 32), 'uint8 on the CPU, got torch.float32'),
    (torch.zeros(3, 32, 32, dtype=torch.uint8), r'got .* of \(3, 32, 32\)'),
    (torch.zeros(1, 4, 32, 32, dtype=torch.uint8), r'\(N, 3, H, W\)'),
    (torch.zeros(1, 3, 32, 31, dtype=torch.uint8), r'pictures of \[32, 32\]'),
])
def test_wrong_images(images, message):
    b = Builder(size=[32, 32])
    b.output(b.convolution('image', 4))
    with pytest.raises(InputError, match=message):
        NativeNetwork(b.build())(images)


def test_too_small_a_picture():
    b = Builder()
    b.output(b.convolution('image', 4, padding=(0, 0)))
    with pytest.raises(InputError, match='too small'):
        NativeNetwork(b.build())(torch.zeros(1, 3, 2, 9, dtype=torch.uint8))


def new_plan():
    return torch.classes.mmadder.IntegerPlan([1, 2, 5, 5], [3, 4])


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def small(plan, kind='adder', **other):
    """Add a layer to a plan, with something else than would be right."""
    if kind == 'adder':
        weight = dict(packed=pack_weight(
            torch.zeros(6, 4, 3, 3, dtype=torch.uint8)))
    else:
        weight = dict(packed=torch.ops.mmadder.conv2d_int8_pack_weight(
            torch.zeros(6, 4, 3, 3, dtype=torch.int8), [1, 1]),
            sums=ints(*range(24)))
    values = dict(
        source=plan.map([1, 4, 5, 5], [1, 1], 7), residual=-1,
        target=plan.map([1, 6, 5, 5], [0, 0], 0), size=[6, 4, 3, 3],
        **weight, multiplier=ints(*range(6)), bias=ints(*range(6)),
        numbers=[20, 0, 0, 255], stride=[1, 1], padding=[1, 1],
        dilation=[1, 1])
    if kind == 'adder':
        values['center'] = False
    assert other.keys() <= values.keys()
    getattr(plan, kind)(*(values | other).values())


@pytest.mark.parametrize('kind', ['adder', 'convolution'])
@pytest.mark.parametrize('other, message', [
    (dict(source=7), 'no map 7'),
    (dict(source=-2), 'no map -2'),
    (dict(residual=0), 'residual is a map of'),
    (dict(target=0), 'output is a map of'),
    (dict(size=[6, 5, 3, 3]), 'input channels'),
    (dict(packed=torch.zeros(3, dtype=torch.uint8)), 'packed_weight'),
    (dict(packed=torch.zeros(3, dtype=torch.int16)), 'packed_weight'),
    (dict(multiplier=ints(1)), 'multiplier has 1 elements, expected 6'),
    (dict(bias=torch.zeros(6)), 'bias must be Int'),
    (dict(bias=ints(0, 0, BIAS + 1, 0, 0, 0)), 'bias must be from'),
    (dict(numbers=[20, 0, 0]), 'are no shift'),
    (dict(numbers=[0, 0, 0, 255]), 'shift must be from 1 to 62, got 0'),
    (dict(numbers=[63, 0, 0, 255]), 'shift must be from 1 to 62, got 63'),
    (dict(numbers=[20, 0, 0, 256]), 'highest must be from 0 to 255'),
    (dict(numbers=[20, 0, 9, 8]), 'low must be from 0 to 8'),
    (dict(residual=1, numbers=[20, 2**21, 0, 255]), 'residual multiplier'),
    (dict(padding=[2, 2]), 'output is a map of|fit the input.s border'),
])
def test_wrong_layer(kind, other, message):
    plan = new_plan()
    with pytest.raises(ValueError, match=message):
        small(plan, kind, **other)
    assert plan.size() == 0


def test_adder_beyond_the_border():
    with pytest.raises(ValueError, match='does not fit the input.s border'):
        small(new_plan(), dilation=[2, 2], padding=[2, 2])


def test_wrong_sums_of_weights():
    with pytest.raises(ValueError, match='weight_sums has 3 elements'):
        small(new_plan(), 'convolution', sums=ints(1, 2, 3))


def test_adder_of_the_picture():
    with pytest.raises(ValueError, match='no map -1'):
        small(new_plan(), source=-1)


@pytest.mark.parametrize('step, message', [
    (lambda p: p.map([1, 2, 3], [0, 0], 0), 'a map is'),
    (lambda p: p.map([1, 2, 3, -1], [0, 0], 0), 'no map of'),
    (lambda p: p.map([1, 2, 3, 4], [0, -1], 0), 'no map of'),
    (lambda p: p.map([1, 2, 3, 4], [0, 0], 256), 'zero point must be'),
    (lambda p: p.write(9), 'no map 9'),
    (lambda p: p.accumulate(-1, [2, 2, 1, 1], torch.zeros(
        4, dtype=torch.int8), ints(1, 2), ints(1, 2), [1, 1], [0, 0], [1, 1]),
     'packed_weight has 4 elements'),
    (lambda p: p.max_pool(0, [2, 2, 2, 2], 0), 'pool is kernel'),
    (lambda p: p.max_pool(0, [2, 2, 2, 2, 2, 2], 0), 'no pooling'),
    (lambda p: p.max_pool(0, [2, 2, 2, 2, 0, 0], 0), 'pooled output'),
    (lambda p: p.average(0, 0, [1, 1, 0, 255]), 'average is a map of'),
    (lambda p: p.average(0, 1, [1, 1, 0]), 'are no multiplier'),
    (lambda p: p.average(0, 1, [-1, 1, 0, 255]), 'multiplier must be'),
    (lambda p: p.average(0, 1, [1, 41, 0, 255]), 'shift must be'),
    (lambda p: p.average(0, 1, [1, 1, 0, 256]), 'highest must be'),
    (lambda p: p.average(0, 1, [1, 1, 3, 2]), 'low must be'),
    (lambda p: p.sum(0, 1, 1, [1, 1, 0, 255]), 'first summand is a map'),
    (lambda p: p.sum(0, 2, 0, [1, 1, 0, 255]), 'second summand is a map'),
    (lambda p: p.sum(0, 0, 0, [1, 1, 0]), 'are no two multipliers'),
    (lambda p: p.sum(0, 0, 0, [1, 2**21, 0, 255]), 'multiplier must be'),
    (lambda p: p.sum(0, 0, 0, [1, 1, 0, -1]), 'highest must be'),
    (lambda p: p.sum(0, 0, 0, [1, 1, -1, 5]), 'low must be'),
])
def test_wrong_steps(step, message):
    plan = new_plan()
    for size in ([1, 2, 4, 4], [1, 2, 1, 1], [1, 3, 4, 4]):
        plan.map(size, [0, 0], 5)
    with pytest.raises(ValueError, match=message):
        step(plan)


@pytest.mark.parametrize('arguments, message', [
    (([1, 2, 5], [3, 4]), 'a picture is'),
    (([1, 2, 5, 5], [3]), 'with C zero points'),
    (([1, 2, 5, 5], [3, 256]), 'zero point must be'),
])
def test_wrong_plan(arguments, message):
    with pytest.raises(ValueError, match=message):
        torch.classes.mmadder.IntegerPlan(*arguments)


@pytest.mark.parametrize('picture, message', [
    (torch.zeros(1, 2, 5, 5), 'must be uint8'),
    (torch.zeros(1, 2, 5, 6, dtype=torch.uint8), r'shape \[1, 2, 5, 6\]'),
])
def test_wrong_picture(picture, message):
    with pytest.raises(ValueError, match=message):
        new_plan().run(picture, 0, 0)


def test_wrong_range_of_steps():
    with pytest.raises(ValueError, match='no steps 0 to 1 of 0'):
        new_plan().run(torch.zeros(1, 2, 5, 5, dtype=torch.uint8), 0, 1)


def test_wrong_weight():
    with pytest.raises(ValueError, match='must be int8'):
        torch.ops.mmadder.conv2d_int8_pack_weight(
            torch.zeros(1, 1, 1, 1), [1, 1])
