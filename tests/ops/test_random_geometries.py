"""Every mode and gradient over random geometries, layouts and values.

The same examples in every run (tests/conftest.py). Run with another
MMADDER_CPU_ISA, the file tests those kernels: test_instruction_sets.py does.
"""
import pytest
import torch
from hypothesis import given, settings
from strategies import problems

from mmadder.ops import adder_conv2d, reference

MODES = ['auto', 'exact', 'max']
FEWER = settings(max_examples=settings().max_examples // 4)


def assert_close(actual, expected, magnitude, terms):
    """Error of a sum: epsilon times root of its length, times its terms.

    Args:
        magnitude (Tensor | float): sum of the terms' absolute values.
    """
    eps = torch.finfo(actual.dtype).eps
    bound = 4 * eps * max(terms, 4)**.5 * magnitude
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs()
    worst = (error - bound).max().item()
    assert worst <= 0, f'{error.max().item():.3g} off, {worst:.3g} too much'


def shifts(geometry, w):
    """Sum of what the max form takes off each term, (1, C_out, 1, 1)."""
    groups = w.unflatten(0, (geometry.groups, -1))
    sums = groups.mean((1, 3, 4)).abs().sum(1) * w[0, 0].numel()
    return sums.repeat_interleave(groups.shape[1]).view(1, -1, 1, 1)


def check_forward(geometry, x, w, modes):
    arguments = geometry.arguments
    x64, w64 = x.double(), w.double()
    expected = reference.adder_conv2d(x64, w64, *arguments)
    # |x| + |w|: what is added up in the max form, and no less than |x - w|.
    operands = -reference.adder_conv2d(
        x64, torch.zeros_like(w64), *arguments) - reference.adder_conv2d(
            torch.zeros_like(x64), w64, *arguments)
    operands += 2 * shifts(geometry, w64)
    for mode in modes:
        y = adder_conv2d(x, w, None, *arguments, mode=mode)
        assert y.dtype == x.dtype and y.is_contiguous()
        assert_close(y, expected, -expected if mode == 'exact' else operands,
                     w[0].numel())


def check_gradients(geometry, x, w, g):
    arguments = geometry.arguments
    x64, w64, g64 = x.double(), w.double(), g.double()
    channel_sum = g64.abs().sum((0, 2, 3)).max()
    for form in ('hardtanh', 'sign'):
        expected_x, expected_w = reference.adder_conv2d_backward(
            g64, x64, w64, *arguments, form)
        grad_x = torch.ops.mmadder.adder_conv2d_input_grad(
            g, x, w, *arguments, form)
        steps = min(1., (x64.abs().max() + w64.abs().max()).item())
        assert_close(
            grad_x, expected_x,
            g64.abs().sum(1).max() * (1. if form == 'sign' else steps),
            len(w) // geometry.groups * w[0, 0].numel())
    grad_w = torch.ops.mmadder.adder_conv2d_weight_grad(g, x, w, *arguments)
    assert_close(grad_w, expected_w,
                 (x64.abs().max() + w64.abs().max()) * channel_sum,
                 g[:, 0].numel())


@given(problems())
def test_forward(problem):
    geometry, (x, w, _) = problem
    check_forward(geometry, x, w, MODES)


@given(problems())
def test_gradients(problem):
    geometry, tensors = problem
    check_gradients(geometry, *tensors)


@FEWER
@given(problems(torch.float64))
def test_float64(problem):
    geometry, (x, w, g) = problem
    check_forward(geometry, x, w, MODES)
    check_gradients(geometry, x, w, g)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@FEWER
@given(problems())
def test_half_types_are_float32_inside(dtype, problem):
    geometry, tensors = problem
    x, w, g = (tensor.to(dtype) for tensor in tensors)
    arguments = geometry.arguments
    for mode in MODES:
        y = adder_conv2d(x, w, None, *arguments, mode=mode)
        wide = adder_conv2d(
            x.float(), w.float(), None, *arguments, mode=mode)
        torch.testing.assert_close(
            y, wide.to(dtype), rtol=0, atol=0, equal_nan=True)
    grad_x = torch.ops.mmadder.adder_conv2d_input_grad(
        g, x, w, *arguments, 'hardtanh')
    wide = torch.ops.mmadder.adder_conv2d_input_grad(
        g.float(), x.float(), w.float(), *arguments, 'hardtanh')
    torch.testing.assert_close(
        grad_x, wide.to(dtype), rtol=0, atol=0, equal_nan=True)


@FEWER
@given(problems())
def test_threads_do_not_change_a_bit(problem):
    geometry, (x, w, g) = problem
    arguments = geometry.arguments
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append([
                *(adder_conv2d(x, w, None, *arguments, mode=mode)
                  for mode in MODES),
                torch.ops.mmadder.adder_conv2d_input_grad(
                    g, x, w, *arguments, 'hardtanh')])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
