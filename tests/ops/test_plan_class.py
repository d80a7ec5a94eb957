"""torch.classes.mmadder.Plan: steps on maps in the kernels' layout."""
import pytest
import torch
import torch.nn.functional as F
from geometries import GEOMETRIES, Geometry

from mmadder.ops import pack_weight, reference

PLANNED = [g for g in GEOMETRIES if g.groups == 1 and g.stride[1] <= 2] + [
    Geometry(1, 3, (5, 6), 70, (3, 3), padding=(1, 1)),
    Geometry(2, 4, (6, 33), 130, (1, 1)),
    Geometry(3, 36, (7, 8), 26, (3, 3), (2, 2), (1, 1)),
    Geometry(1, 33, (9, 5), 18, (1, 1), (2, 2)),
    Geometry(5, 16, (33, 40), 48, (3, 3), (1, 1), (1, 1))]


def new_plan():
    return torch.classes.mmadder.Plan()


def epilogue(channels, seed=0):
    """Random mean, scale and bias."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, generator=generator) for _ in range(3)]


class Layer:
    """One adder with its epilogue, and what it computes."""

    def __init__(self, geometry, mode='auto', center=False, relu=False,
                 shortcut=False, more_border=0):
        self.geometry, self.mode = geometry, mode
        self.center, self.relu, self.shortcut = center, relu, shortcut
        self.x, self.w, like_output = geometry.tensors()
        self.norm = epilogue(geometry.out_channels)
        self.residual = like_output if shortcut else None
        self.border = [p + more_border for p in geometry.padding]

    def run(self, x=None):
        """Through a plan of its own."""
        x, plan = self.x if x is None else x, new_plan()
        source = plan.map(list(x.shape), self.border)
        inputs = [x]
        plan.read(source)
        shape = list(self.geometry.tensors()[2].shape)
        residual = -1
        if self.shortcut:
            residual = plan.map(shape, [0, 3])
            plan.read(residual)
            inputs.append(self.residual)
        target = plan.map(shape, [1, 2])
        self.add(plan, source, residual, target)
        plan.write(target)
        output, = plan.run(inputs, 0, plan.size())
        again, = plan.run(inputs, 0, plan.size())
        assert torch.equal(output, again) or output.isnan().any()
        return output

    def add(self, plan, source, residual, target):
        stride, padding, dilation, _ = self.geometry.arguments
        plan.adder(
            source, residual, target, list(self.w.shape),
            pack_weight(self.w, shifted=False), *self.norm, self.relu,
            list(stride), list(padding), list(dilation), self.mode,
            self.center)

    def expected(self, x=None):
        x = self.x if x is None else x
        y = reference.adder_conv2d(
            x.double(), self.w.double(), *self.geometry.arguments,
            center=self.center)
        mean, scale, bias = (v.double().view(1, -1, 1, 1) for v in self.norm)
        y = (y - mean) * scale + bias
        y = y + self.residual.double() if self.shortcut else y
        return (y.relu() if self.relu else y).float()


def check(layer):
    """Errors are relative to distances, also where those are centered."""
    farthest = reference.adder_conv2d(
        layer.x, layer.w, *layer.geometry.arguments).abs().max()
    bound = 2e-6 * (farthest * layer.norm[1].abs().max()).item() + 1e-5
    torch.testing.assert_close(
        layer.run(), layer.expected(), rtol=1e-5, atol=bound)


@pytest.mark.parametrize('mode', ['auto', 'exact', 'max'])
@pytest.mark.parametrize('geometry', PLANNED)
def test_adder(geometry, mode):
    check(Layer(geometry, mode))


@pytest.mark.parametrize('geometry', PLANNED)
def test_epilogue_and_a_wider_border(geometry):
    check(Layer(geometry, relu=True, shortcut=True, more_border=2))


@pytest.mark.parametrize('mode', ['auto', 'exact', 'max'])
@pytest.mark.parametrize(
    'geometry', [g for g in PLANNED if g.out_channels > 1])
def test_centered(geometry, mode):
    check(Layer(geometry, mode, center=True, relu=True, shortcut=True))


def test_auto_takes_the_exact_form_where_max_cannot_resolve():
    """x close to w: the max form alone would lose most digits."""
    geometry = Geometry(1, 48, (6, 5), 32, (3, 3), padding=(1, 1))
    layer = Layer(geometry)
    layer.norm = [torch.zeros(32), torch.ones(32), torch.zeros(32)]
    layer.w = 100 + 1e-3 * layer.w
    layer.x = 100 + 1e-3 * layer.x
    expected = layer.expected()
    inside = (..., slice(1, -1), slice(1, -1))
    actual = layer.run()
    torch.testing.assert_close(
        actual[inside], expected[inside], rtol=1e-4, atol=0)
    layer.mode = 'max'
    assert (layer.run() / expected - 1)[inside].abs().max() > 1e-3


def test_infinity_stays_in_its_channel():
    """Channels that fill up a block remain zero, whatever comes."""
    first = Layer(Geometry(1, 17, (5, 6), 18, (1, 1)))
    second = Layer(Geometry(1, 18, (5, 6), 20, (3, 3), padding=(1, 1)))
    x = first.x.clone()
    x[0, 3, 1, 1] = float('inf')
    first.relu = True
    first.norm[1].abs_()
    plan = new_plan()
    maps = [plan.map(list(size), [1, 1]) for size in (
        x.shape, second.x.shape, (1, 20, 5, 6))]
    plan.read(maps[0])
    first.add(plan, maps[0], -1, maps[1])
    second.add(plan, maps[1], -1, maps[2])
    plan.write(maps[2])
    output, = plan.run([x], 0, plan.size())
    torch.testing.assert_close(
        output, second.expected(first.expected(x)), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_edge_values_as_the_fused_operator(value):
    layer = Layer(Geometry(1, 20, (6, 7), 12, (3, 3), padding=(1, 1)))
    layer.x[0, 2, 3, 4] = value
    torch.testing.assert_close(
        layer.run(), torch.ops.mmadder.adder_conv2d_fused(
            layer.x, layer.w, pack_weight(layer.w), *layer.norm, None, False,
            *layer.geometry.arguments, 'auto'),
        rtol=1e-5, atol=3e-4, equal_nan=True)


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('geometry', [
    Geometry(1, 24, (20, 21), 40, (3, 3), (2, 1), (1, 1)),
    Geometry(5, 40, (7, 6), 70, (3, 3), (1, 1), (1, 1))])
def test_threads_do_not_change_a_bit(geometry, center):
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(Layer(geometry, center=center).run())
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize('layout', ['NCHW', 'NHWC', 'strided'])
@pytest.mark.parametrize('size', [(2, 17, 5, 19), (1, 3, 1, 1), (3, 32, 7, 16),
                                  (0, 4, 3, 3)])
def test_read_and_write(size, layout):
    x = torch.randn(size)
    if layout == 'NHWC':
        x = x.to(memory_format=torch.channels_last)
    elif layout == 'strided':
        x = torch.randn(size[0], size[1], 2 * size[2], size[3])[:, :, ::2]
    plan = new_plan()
    number = plan.map(list(size), [2, 1])
    plan.read(number)
    plan.write(number)
    output, = plan.run([x], 0, 2)
    assert output.is_contiguous() and torch.equal(output, x)


POOLS = [(3, 2, 1), (2, 2, 0), ((1, 3), (2, 1), (0, 1)), ((5, 2), 1, (2, 1)),
         (1, 2, 0)]


@pytest.mark.parametrize('pool', POOLS)
@pytest.mark.parametrize('size', [(2, 17, 9, 8), (1, 4, 5, 37)])
def test_max_pool(size, pool):
    x = torch.randn(size)
    x[0, 1, 2, 3] = float('nan')
    expected = F.max_pool2d(x, *pool)
    pairs = [extent for value in pool for extent in (
        value if isinstance(value, tuple) else (value, value))]
    plan = new_plan()
    source = plan.map(list(size), [1, 0])
    target = plan.map(list(expected.shape), [0, 1])
    plan.read(source)
    plan.max_pool(source, pairs, target)
    plan.write(target)
    output, = plan.run([x], 0, 3)
    torch.testing.assert_close(output, expected, rtol=0, atol=0,
                               equal_nan=True)


@pytest.mark.parametrize('pool', [[1, 1, 1, 1, 0, 0], [3, 3, 2, 2, 1, 1]])
@pytest.mark.parametrize('relu', [False, True])
def test_stem(pool, relu):
    torch.manual_seed(0)
    x, bias = torch.randn(2, 3, 19, 22), torch.randn(32)
    w = torch.randn(32, 3, 5, 3)
    y = F.conv2d(x, w, bias, (2, 1), (2, 1))
    expected = F.max_pool2d(y.relu() if relu else y, pool[:2], pool[2:4],
                            pool[4:])
    plan = new_plan()
    target = plan.map(list(expected.shape), [1, 1])
    plan.stem(list(x.shape), w, bias, [2, 1], [2, 1], [1, 1], 1, relu, pool,
              target)
    plan.write(target)
    output, = plan.run([x], 0, 2)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-4)


def test_add():
    a, b = torch.randn(2, 5, 4, 7), torch.randn(2, 5, 3, 2)
    rows, columns = [0, 2, 2, 1], [1, 0, 0, 0, 1, 1, 0]
    plan = new_plan()
    maps = [plan.map(list(t.shape), border) for t, border in (
        (a, [0, 0]), (b, [1, 2]), (a, [2, 1]))]
    plan.read(maps[0])
    plan.read(maps[1])
    plan.add(maps[0], maps[1], rows, columns, maps[2])
    plan.write(maps[2])
    output, = plan.run([a, b], 0, 4)
    assert torch.equal(output, a + b[:, :, rows][..., columns])


# Errors ---------------------------------------------------------------------


def small(plan, **other):
    """Add an adder to a plan, with something else than would be right."""
    values = dict(
        source=plan.map([1, 4, 5, 5], [1, 1]), residual=-1,
        target=plan.map([1, 6, 5, 5], [0, 0]), size=[6, 4, 3, 3],
        packed=pack_weight(torch.zeros(6, 4, 3, 3), shifted=False),
        mean=torch.zeros(6), scale=torch.ones(6), bias=torch.zeros(6),
        relu=False, stride=[1, 1], padding=[1, 1], dilation=[1, 1],
        mode='auto', center=False)
    assert other.keys() <= values.keys()
    plan.adder(*(values | other).values())


@pytest.mark.parametrize('other, message', [
    (dict(source=7), 'no map 7'),
    (dict(residual=0), 'residual is a map of'),
    (dict(target=0), 'output is a map of'),
    (dict(size=[6, 5, 3, 3]), 'input channels'),
    (dict(packed=torch.zeros(3)), 'packed_weight has 3 elements'),
    (dict(mean=torch.zeros(5)), 'epilogue has 5 elements'),
    (dict(scale=torch.zeros(6).double()), 'must be float32'),
    (dict(padding=[2, 2]), 'output is a map of'),
    (dict(dilation=[2, 2], padding=[2, 2]), 'does not fit the input.s border'),
    (dict(mode='fast'), 'mode must be'),
])
def test_wrong_adder(other, message):
    plan = new_plan()
    with pytest.raises((ValueError, RuntimeError), match=message):
        small(plan, **other)
    assert plan.size() == 0


@pytest.mark.parametrize('step, message', [
    (lambda p: p.map([1, 2, 3], [0, 0]), 'a map is'),
    (lambda p: p.map([1, 2, 3, -1], [0, 0]), 'no map of'),
    (lambda p: p.map([1, 2, 3, 4], [0, -1]), 'no map of'),
    (lambda p: p.write(0), 'no map 0'),
    (lambda p: p.max_pool(p.map([1, 2, 4, 4], [0, 0]), [2, 2, 2, 2, 2, 2],
                          0), 'no pooling'),
    (lambda p: p.max_pool(p.map([1, 2, 4, 4], [0, 0]), [2, 2, 2, 2, 0, 0],
                          0), 'pooled output'),
    (lambda p: p.add(p.map([1, 2, 4, 4], [0, 0]), 0, [0, 1, 2, 4],
                     [0, 1, 2, 3], 0), 'index 4'),
    (lambda p: p.add(p.map([1, 2, 4, 4], [0, 0]), 0, [0, 1, 2], [0], 0),
     '3 indices for 4'),
    (lambda p: p.stem([1, 3, 8, 8], torch.zeros(20, 3, 3, 3), None, [1, 1],
                      [1, 1], [1, 1], 1, True, [1, 1, 1, 1, 0, 0],
                      p.map([1, 20, 8, 8], [0, 0])), 'multiple of 16'),
    (lambda p: p.run([], 0, 1), 'no steps 0 to 1 of 0'),
])
def test_wrong_steps(step, message):
    with pytest.raises(ValueError, match=message):
        step(new_plan())


@pytest.mark.parametrize('inputs, message', [
    ([], 'an input is missing'),
    ([torch.zeros(1, 2, 3, 5)], r'input has shape \[1, 2, 3, 5\]'),
    ([torch.zeros(1, 2, 3, 4).double()], 'must be float32'),
])
def test_wrong_input(inputs, message):
    plan = new_plan()
    plan.read(plan.map([1, 2, 3, 4], [0, 0]))
    with pytest.raises((ValueError, RuntimeError), match=message):
        plan.run(inputs, 0, 1)
