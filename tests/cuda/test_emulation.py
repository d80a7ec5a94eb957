"""The CUDA kernels, run on a CPU, against the float64 reference.

Needs no GPU and no CUDA, only g++. Sanitizers look for stray accesses and
missing barriers; planted bugs show that they and the comparison find them.
"""
import math
import shutil

import cuda_mutants as mutants
import emulation
import pytest
import torch
from emulation import Problem
from geometries import GEOMETRIES, TILES, Geometry

from mmadder.ops import reference

# Both kinds of fetching, split depth, groups.
SHORT = [TILES[0], TILES[1], TILES[2], TILES[4]]
# For no tile: a channel a group, for more filters than a short sum takes.
DIRECT = Geometry(2, 2, (13, 10), 40, (3, 3), (2, 2), (1, 1), groups=2)
# Four row tiles, the last with tails; two a group; few channels; whole tiles.
ROW_TILES = [
    Geometry(2, 6, (5, 6), 400, (2, 3), (1, 2), (1, 1)),
    Geometry(1, 32, (6, 6), 320, (3, 3), (1, 1), (1, 1), groups=2),
    Geometry(2, 9, (5, 4), 36, (2, 2)),
    Geometry(3, 32, (8, 6), 64, (1, 1)),
]


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """Return a function sanitizer -> program, each compiled once."""
    programs = {}

    def get(sanitizer=None):
        if sanitizer not in programs:
            programs[sanitizer] = emulation.compile_emulation(
                tmp_path_factory.mktemp('emulation'), sanitizer)
        return programs[sanitizer]

    return get


def worst_errors(problem, result):
    """Largest errors of output and gradient in units of the allowed ones.

    A float32 sum of K terms: a few units and a random walk of their sum of
    magnitudes. The result is rounded once more to the dtype. A gradient
    2 * sum g * s - sum g is as exact as sum |g|, and s as exact as W.
    """
    g = problem.geometry
    x, w, grad = (t.double() for t in (
        problem.input, problem.weight, problem.grad_output))
    distance = -reference.adder_conv2d(x, w, *g.arguments)
    expected = -distance
    if problem.center:
        expected = reference.adder_conv2d(x, w, *g.arguments, center=True)
        filters = distance.unflatten(1, (g.groups, -1))
        distance = (filters + filters.mean(2, keepdim=True)).flatten(1, 2)
    if problem.fused is not None:
        return [worst_fused_error(problem, result, expected, distance)]
    expected_grad, _ = reference.adder_conv2d_backward(
        grad, x, w, *g.arguments, problem.form)
    # Sums of |g|: a gradient with every X far below W.
    magnitude, _ = reference.adder_conv2d_backward(
        grad.abs(), torch.full_like(x, -1e6), w, *g.arguments)
    double = problem.dtype == torch.float64
    unit = torch.finfo(torch.float64 if double else torch.float32).eps / 2
    rounding = torch.finfo(problem.dtype).eps / 2
    taps = g.kernel[0] * g.kernel[1]
    paired = result.forward_plan // 10000 % 10 == 1
    forward_unit = torch.finfo(torch.float16).eps if paired else unit
    errors = []
    for actual, wanted, scale, eps, terms in (
            (result.output, expected, distance, forward_unit,
             taps * x.shape[1] // g.groups),
            (result.grad_input, expected_grad, magnitude,
             unit * max(1, w.abs().max().item()),
             taps * w.shape[0] // g.groups)):
        walk = 1 if eps == torch.finfo(torch.float16).eps else 4 + 2 * (
            math.sqrt(terms))
        allowed = rounding * wanted.abs() + eps * walk * scale + 1e-30
        error = (actual - wanted).abs() / allowed
        errors.append(error.nan_to_num(nan=math.inf).max().item())
    return errors


def worst_fused_error(problem, result, sums, distance):
    """The same of the forward of inference: its steps are rounded too."""
    mean, scale, bias = problem.norm.double()[..., None, None]
    residual = problem.residual.double() if 'shortcut' in problem.fused else 0
    expected = (sums - mean) * scale + bias + residual
    magnitude = ((distance + mean.abs()) * scale.abs() + bias.abs() +
                 abs(residual))
    if 'relu' in problem.fused:
        expected = expected.relu()
    terms = problem.weight[0].numel()
    unit = torch.finfo(torch.float32).eps / 2
    allowed = unit * (4 + 2 * math.sqrt(terms)) * magnitude + 1e-30
    error = (result.output - expected).abs() / allowed
    return error.nan_to_num(nan=math.inf).max().item()


def assert_right(program, problems, folder):
    for problem, result in zip(problems, emulation.run(
            program, problems, folder)):
        errors = worst_errors(problem, result)
        assert max(errors) <= 1, (problem, errors, vars(result))


# ---------------------------------------------------------------- values --


@pytest.mark.parametrize('order', emulation.ORDERS)
def test_every_geometry(compiled, tmp_path, order):
    """The list of the CPU tests, with and without a split depth."""
    problems = [
        Problem(geometry, form=form, order=order, multiprocessors=count)
        for geometry in GEOMETRIES + TILES
        for form, count in (('hardtanh', 1), ('sign', 108))]
    assert_right(compiled(), problems, tmp_path)


@pytest.mark.parametrize('dtype', emulation.DTYPES[1:])
def test_every_dtype(compiled, tmp_path, dtype):
    problems = [
        Problem(geometry, dtype, form, 'shuffled', count)
        for geometry in GEOMETRIES + TILES
        for form, count in (('hardtanh', 132), ('sign', 1))]
    assert_right(compiled(), problems, tmp_path)


def test_random_geometries(compiled, tmp_path):
    problems = [
        Problem(geometry, form=emulation.FORMS[i % 2], order='shuffled',
                multiprocessors=1 + 131 * (i % 2), seed=i)
        for i, geometry in enumerate(emulation.random_geometries(60))]
    assert_right(compiled(), problems, tmp_path)


@pytest.mark.parametrize('dtype', emulation.DTYPES)
def test_centered(compiled, tmp_path, dtype):
    """Tiled and direct, with and without a split depth, in groups."""
    problems = [
        Problem(geometry, dtype, multiprocessors=count, order='shuffled',
                center=True)
        for geometry in GEOMETRIES + TILES + ROW_TILES for count in (1, 132)
        if geometry.out_channels > geometry.groups]
    assert_right(compiled(), problems, tmp_path)


@pytest.mark.parametrize('center', [False, True])
def test_fused(compiled, tmp_path, center):
    """All tiles, groups and splits, with norm, shortcut and ReLU."""
    words = ('', 'relu', 'shortcut', 'shortcut, relu')
    problems = [
        Problem(geometry, multiprocessors=count, order='shuffled', seed=i,
                center=center, fused=words[(i + k) % 4])
        for i, geometry in enumerate(GEOMETRIES + TILES + ROW_TILES)
        for k, count in enumerate((1, 132))
        if geometry.out_channels > geometry.groups or not center]
    assert_right(compiled(), problems, tmp_path)


def test_every_fused_kernel_is_met(compiled, tmp_path):
    """In one launch and in two, as groups larger than a tile have to be."""
    problems = [Problem(geometry, multiprocessors=count, center=True, fused='')
                for geometry in TILES + ROW_TILES for count in (1, 108)]
    plans = {result.fused_plan for result in emulation.run(
        compiled(), problems, tmp_path)}
    fetching = {0, 1000}
    assert {plan % 100000 for plan in plans} == {
        rows + f for rows in (32, 64, 128) for f in fetching}
    # (finished apart, split)
    assert {(plan >= 1000000, plan // 100000 % 10 == 1) for plan in plans} == {
        (False, False), (True, False), (True, True)}


def test_fused_keeps_nan(compiled, tmp_path):
    """And centering spreads it over its group, no further."""

    def change(x, w, g):
        x[0, 0, 0, 1] = math.nan

    for center in (False, True):
        problem = Problem(
            Geometry(1, 32, (4, 5), 40, (1, 1), groups=2), change=change,
            center=center, fused='relu')
        result, = emulation.run(compiled(), [problem], tmp_path)
        assert result.output[0, :20, 0, 1].isnan().all()
        assert result.output.isnan().sum() == 20


def test_centered_before_it_is_rounded(compiled, tmp_path):
    """Distances near 4000, differences near 1: float16 holds the latter."""

    def change(x, w, g):
        x.fill_(10), w.zero_()
        w[0, 0] = 1  # a distance of 3999, the others have 4000

    problem = Problem(Geometry(1, 400, (2, 2), 16, (1, 1)), torch.bfloat16,
                      change=change, center=True)
    result, = emulation.run(compiled(), [problem], tmp_path)
    expected = torch.full((16, ), -1 / 16)
    expected[0] = 15 / 16
    torch.testing.assert_close(
        result.output[0, :, 0, 0].float(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('filters', [64, 128])
def test_sums_beyond_float16_are_centered(compiled, tmp_path, filters):
    """Summed in pairs of float16, all were infinite, and NaN once centered."""

    def change(x, w, g):
        x.fill_(5000)

    problem = Problem(Geometry(1, 16, (2, 2), filters, (1, 1)), torch.float16,
                      change=change, center=True)
    result, = emulation.run(compiled(), [problem], tmp_path)
    expected = reference.adder_conv2d(
        problem.input.double(), problem.weight.double(), center=True)
    torch.testing.assert_close(
        result.output.double(), expected, rtol=1e-2, atol=.1)


def test_every_centered_kernel_is_met(compiled, tmp_path):
    """With sums over rows in one launch and in two, of all types."""
    problems = [
        Problem(geometry, dtype, multiprocessors=count, center=True)
        for geometry in TILES + ROW_TILES for count in (1, 108)
        for dtype in emulation.DTYPES]
    plans = {result.forward_plan for result in emulation.run(
        compiled(), problems, tmp_path)}
    fetching = {0, 1000}
    assert {plan % 100000 for plan in plans} == {
        0, *(rows + f for rows in (32, 64, 128) for f in fetching)}
    assert {(plan >= 1000000, plan // 100000 % 10 == 1) for plan in plans} == {
        (False, False), (True, False), (True, True)}


def test_every_kernel_is_met(compiled, tmp_path):
    """The lists above reach each tile with each way of fetching."""
    problems = [Problem(geometry, dtype, multiprocessors=count)
                for geometry in GEOMETRIES + TILES
                for dtype in emulation.DTYPES for count in (1, 108)]
    results = emulation.run(compiled(), problems, tmp_path)
    fetching = {0, 1000}
    assert {result.forward_plan % 100000 for result in results} == {
        0, 11128, *(rows + f for rows in (32, 64, 128) for f in fetching)}
    assert {result.input_grad_plan % 100000 for result in results} == {
        0, *(rows + f for rows in (64, 128) for f in fetching)}
    for plan in ('forward_plan', 'input_grad_plan'):
        assert {getattr(r, plan) >= 100000 for r in results} == {False, True}


def test_same_bits_whatever_the_order(compiled, tmp_path):
    problems = [
        Problem(geometry, order=order, multiprocessors=108, seed=0)
        for geometry in TILES for order in emulation.ORDERS]
    results = emulation.run(compiled(), problems, tmp_path)
    for i in range(0, len(results), 3):
        for other in results[i + 1:i + 3]:
            assert torch.equal(results[i].output, other.output)
            assert torch.equal(results[i].grad_input, other.grad_input)


@pytest.mark.parametrize('form', emulation.FORMS)
@pytest.mark.parametrize('geometry', [
    Geometry(1, 32, (4, 5), 40, (1, 1)), Geometry(1, 2, (4, 5), 3, (1, 1))])
def test_nan_and_infinity(compiled, tmp_path, geometry, form):
    """As on the CPU: NaN reaches all that see it, infinity is a distance."""

    def change(x, w, g):
        x[0, 0, 0, 1], x[0, 1, 1, 2] = math.nan, math.inf
        x[0, 1, 2, 2] = -math.inf
        g.fill_(1)

    problem = Problem(geometry, form=form, change=change)
    result, = emulation.run(compiled(), [problem], tmp_path)
    y, grad = result.output, result.grad_input
    assert y[0, :, 0, 1].isnan().all() and y.isnan().sum() == len(y[0])
    assert (y[0, :, 1:3, 2] == -math.inf).all()
    assert grad[0, 0, 0, 1].isnan() and grad.isnan().sum() == 1
    assert grad[0, 1, 1, 2] == -geometry.out_channels
    assert grad[0, 1, 2, 2] == geometry.out_channels


def test_sign_of_zero_is_zero(compiled, tmp_path):
    def change(x, w, g):
        x.fill_(0.5), w.fill_(0.5)

    problem = Problem(TILES[0], form='sign', change=change)
    result, = emulation.run(compiled(), [problem], tmp_path)
    # Sums of g / 2 - g / 2 in another order: zero but for rounding.
    assert result.grad_input.abs().max() < 1e-4


def test_float16_sums_beyond_its_range_are_infinite(compiled, tmp_path):
    def change(x, w, g):
        x.fill_(6e4), w.fill_(-6e4)

    problem = Problem(TILES[0], torch.float16, change=change)
    result, = emulation.run(compiled(), [problem], tmp_path)
    assert (result.output == -math.inf).all()


def test_more_than_2_to_the_31_elements(compiled):
    """Only the last blocks run, on memory that is mostly never touched."""
    emulation.run_far(compiled())


# ------------------------------------------------------------ sanitizers --


@pytest.mark.parametrize('sanitizer', ['address', 'thread'])
def test_sanitizers_find_nothing(compiled, tmp_path, sanitizer):
    problems = [
        Problem(geometry, dtype, form, multiprocessors=count)
        for geometry in SHORT
        for dtype, form, count in ((torch.float32, 'hardtanh', 1),
                                   (torch.float16, 'sign', 16))]
    assert_right(compiled(sanitizer), problems, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('sanitizer', ['address', 'thread'])
def test_sanitizers_find_nothing_at_length(compiled, tmp_path, sanitizer):
    problems = [
        Problem(geometry, dtype, form, 'shuffled', count)
        for geometry in GEOMETRIES + TILES + emulation.random_geometries(20)
        for dtype in emulation.DTYPES
        for form, count in (('hardtanh', 1), ('sign', 132))]
    assert_right(compiled(sanitizer), problems, tmp_path)


# --------------------------------------------------------------- mutants --


def plant(mutant, folder):
    """Copy the kernels with one bug; return the folder."""
    name, old, new, occurrence, _ = mutants.MUTANTS[mutant]
    csrc = shutil.copytree(emulation.CSRC, folder / 'csrc')
    parts = (csrc / name).read_text().split(old)
    assert len(parts) > occurrence, f'{name} has no such line any more'
    (csrc / name).write_text(
        old.join(parts[:occurrence]) + new + old.join(parts[occurrence:]))
    return csrc


def is_noticed(program, folder):
    """Whether values, a sanitizer or the emulation itself object."""

    def change(x, w, g):
        x[0, 0, 0, 0] = math.nan

    problems = [
        Problem(geometry, dtype, form, order, count)
        for order in emulation.ORDERS for geometry in SHORT + TILES[6:8]
        for dtype, form, count in (
            (torch.float32, 'hardtanh', 1), (torch.bfloat16, 'sign', 108),
            (torch.float32, 'hardtanh', 108))]
    problems += [Problem(geometry, dtype, multiprocessors=count, center=True)
                 for geometry in SHORT for dtype, count in (
                     (torch.float32, 1), (torch.float16, 108))]
    problems += [
        Problem(geometry, multiprocessors=count, center=center, fused=fused)
        for geometry in [*SHORT, DIRECT, *ROW_TILES]
        for count, center, fused in ((1, True, 'shortcut, relu'),
                                     (108, True, ''), (1, False, 'relu'))]
    problems += [Problem(TILES[7], change=change, fused='relu'),
                 Problem(TILES[7], change=change)]
    try:
        results = emulation.run(program, problems, folder)
        emulation.run_far(program)
    except emulation.Crash:
        return True
    *results, fused_nan, with_nan = results
    return (not with_nan.grad_input[0, 0, 0, 0].isnan()
            or not fused_nan.output[0, :, 0, 0].isnan().all() or any(
        max(worst_errors(p, r)) > 1 for p, r in zip(problems, results)))


@pytest.mark.parametrize('mutant', mutants.MUTANTS)
def test_mutants_can_be_planted(tmp_path, mutant):
    plant(mutant, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('sanitizer', emulation.SANITIZERS)
def test_nothing_is_noticed_without_a_bug(compiled, tmp_path, sanitizer):
    assert not is_noticed(compiled(sanitizer), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('mutant', mutants.MUTANTS)
def test_mutants_are_noticed(tmp_path, mutant):
    csrc = plant(mutant, tmp_path)
    program = emulation.compile_emulation(
        tmp_path, mutants.MUTANTS[mutant][-1], csrc)
    assert is_noticed(program, tmp_path)
