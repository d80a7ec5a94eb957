"""Plans for one size, and maps that leave and enter them."""
import copy

import pytest
import torch
from four_adders import FourAdders
from settling import relative_error, settle
from torch import nn

from mmadder.inference import fuse_adder_bn
from mmadder.inference.plan_graph import PlanGraph
from mmadder.inference.plan_steps import Native, PlannedSteps, Unplannable


def plan(between, stem=None, size=(2, 16, 14, 10)):
    """The model, its fused copy, an input and the steps."""
    torch.manual_seed(0)
    x = torch.rand(size)
    model = settle(FourAdders(between, stem), x)
    fused = fuse_adder_bn(model)
    with torch.no_grad():
        return model, fused, x, PlannedSteps(PlanGraph(fused), {}, x)


def check(steps, model, x):
    """No farther from float64 than the model itself, or nearly so."""
    expected = copy.deepcopy(model).double()(x.double())
    noise = relative_error(model(x), expected)
    assert relative_error(steps.run(x), expected) < max(1e-5, 3 * noise)
    assert noise < 1e-4


@pytest.mark.parametrize('between, parts', [
    (lambda net, x: net.pool(x), 1),
    (lambda net, x: net.act(x), 2),
    (lambda net, x: x + net.one(x), 1),
    (lambda net, x: x - net.one(x), 2),
    (lambda net, x: x + nn.functional.interpolate(net.pool(x), x.shape[2:]),
     1),
    (lambda net, x: x + nn.functional.interpolate(net.pool(x),
                                                  scale_factor=2), 1),
    (lambda net, x: x.flatten(2).unflatten(2, x.shape[2:]), 2),
    (lambda net, x: x * x.size(1), 2),
    (lambda net, x: net.stem(x), 1),
])
def test_values(between, parts):
    model, fused, x, steps = plan(between)
    assert sum(isinstance(stage, Native) for stage in steps.stages) == parts
    with torch.no_grad():
        assert torch.equal(steps.run(x), steps.first_output)
        for batch in (x, torch.rand_like(x)):
            check(steps, model, batch)
    assert torch.equal(steps.run(x), steps.first_output)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('length', [1, 2, 3, 4])
def test_stem_with_folded_norm(length, bias):
    stem = nn.Sequential(
        nn.Conv2d(3, 16, (3, 5), (1, 2), (2, 1), bias=bias),
        nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d((2, 3), 2, (0, 1)))
    model, _, x, steps = plan(
        lambda net, x: x, stem[:length], (2, 3, 18, 31))
    with torch.no_grad():
        check(steps, model, x)


def test_memory_is_used_again():
    """Maps of one size that are not needed at once share their memory."""
    *_, steps = plan(lambda net, x: x)
    number = steps.native.map([1, 1, 1, 1], [0, 0])
    # The input, two to take turns.
    assert number <= 3


def test_sizes_that_do_not_meet():
    with pytest.raises((Unplannable, RuntimeError)):
        plan(lambda net, x: x + net.pool(x))


class Shrinking(nn.Module):
    """One row less at each call."""
    rows = 14

    def forward(self, x):
        self.rows -= 1
        return x[:, :, :self.rows]


def test_another_size_from_outside():
    """Never an answer of the wrong size: the steps are to be planned anew."""
    shrinking = Shrinking()
    # With a hook, it is called as it is.
    shrinking.register_forward_hook(lambda module, inputs, output: None)
    _, _, x, steps = plan(lambda net, x: x, shrinking)
    with pytest.raises(Unplannable):
        steps.run(x)
