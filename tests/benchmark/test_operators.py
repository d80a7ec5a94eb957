"""The candidates compute what they are timed for."""
import pytest
import torch

from mmadder.benchmark import operators
from mmadder.benchmark.shapes import Layer
from mmadder.ops import reference

LAYER = Layer(2, 3, (7, 6), 5, 3, 2)
GROUPED = Layer(2, 4, (7, 6), 6, 3, 2, 2)


@pytest.mark.parametrize('layer', [LAYER, GROUPED], ids=str)
def test_layer_is_the_convolution_that_runs(layer):
    problem = operators.Problem.random(layer)
    output = operators.conv2d(problem)()
    assert output.shape == problem.grad.shape == (
        2, layer.out_channels, *layer.out_size)
    assert layer.terms == output.numel() * problem.w[0].numel()


@pytest.mark.parametrize('name, layer', [
    *((name, LAYER) for name in ('auto', 'exact', 'max', 'cdist')),
    *((name, GROUPED) for name in ('auto', 'exact', 'max'))])
def test_forward_candidates_compute_the_same(name, layer):
    problem = operators.Problem.random(layer)
    expected = reference.adder_conv2d(
        problem.x, problem.w, *problem.geometry)
    torch.testing.assert_close(
        operators.MAKERS[name](problem)(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('layer', [LAYER, GROUPED], ids=str)
def test_plain_pytorch_goes_image_by_image(layer):
    problem = operators.Problem.random(layer)
    torch.testing.assert_close(
        torch.cat(operators.plain_pytorch(problem)()),
        reference.adder_conv2d(problem.x, problem.w, *problem.geometry))


@pytest.mark.parametrize('layer', [LAYER, GROUPED], ids=str)
def test_gradients_are_those_of_the_reference(layer):
    problem = operators.Problem.random(layer)
    _, x, w, grad = problem
    expected = reference.adder_conv2d_backward(
        grad, x, w, *problem.geometry)
    single = [operators.MAKERS[name](problem)() for name in ('dX', 'dW')]
    for actual in (single, operators.adder_step(problem)()):
        torch.testing.assert_close(
            tuple(actual), expected, rtol=1e-4, atol=1e-4)


def test_weight_norms_are_one_function():
    problem = operators.Problem.random(LAYER)
    steps = [make(problem)()
             for make in operators.GROUPS['weight_norm'].values()]
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-4)
    assert [len(gradient) for gradient in steps[0]] == [LAYER.out_channels] * 3


def test_every_candidate_runs():
    calls = operators.calls(LAYER, list(operators.GROUPS))
    assert set(operators.MAKERS) - set(calls) <= {'int8', 'faiss'}
    for call in calls.values():
        call()
