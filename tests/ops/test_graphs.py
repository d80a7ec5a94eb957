"""Graph capture and mixed precision: compile, export, autocast, scaled loss.

On the CPU; the CUDA operators share schemas, fake kernels, autograd and the
weight gradient. tests/cuda/test_gpu.py repeats a few of them on a GPU.
"""
import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

from mmadder.layers import AdderConv2d, set_loss_scale
from mmadder.models import AdderResNet


class Block(nn.Module):
    """Two adders, one of them grouped, each with the norm it needs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            AdderConv2d(3, 8, 3, stride=2, padding=1, weight_norm='AWN'),
            nn.BatchNorm2d(8), nn.ReLU(),
            AdderConv2d(8, 12, (3, 1), groups=2, bias=True),
            nn.BatchNorm2d(12))

    def forward(self, x):
        return self.layers(x).mean((2, 3))


def make_block(seed=0):
    torch.manual_seed(seed)
    return Block(), torch.randn(4, 3, 11, 10)


def step(model, x):
    """Loss and the gradient of each parameter."""
    model.zero_grad()
    loss = model(x).square().sum()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


@pytest.fixture(autouse=True)
def fresh_graphs():
    torch._dynamo.reset()
    yield
    set_loss_scale(1)


# ---------------------------------------------------------------- graphs --


@pytest.mark.parametrize('backend', [
    'aot_eager', pytest.param('inductor', marks=pytest.mark.slow)])
def test_compiled_layers_have_no_graph_break(backend):
    model, x = make_block()
    compiled = torch.compile(copy.deepcopy(model), backend=backend,
                             fullgraph=True)
    loss, grads = step(model, x)
    compiled_loss, compiled_grads = step(compiled, x)
    torch.testing.assert_close(compiled_loss, loss)
    torch.testing.assert_close(compiled_grads, grads, rtol=1e-4, atol=1e-4)


def test_compiled_layer_takes_any_size():
    """Sizes become symbols at the second one; the fake kernel computes it."""
    model, _ = make_block()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    for size in ((2, 3, 9, 8), (3, 3, 12, 15), (5, 3, 7, 21)):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4,
                                   atol=1e-4)


def test_the_path_from_a_convolution_takes_three_graphs():
    """Whatever values t passes: a graph for each would be too many."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    layer = AdderConv2d(3, 8, 3, weight_norm='AWN', center=True)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    x = torch.randn(2, 3, 9, 8)
    for fraction in (0, *(i / 20 for i in range(1, 20)), 1):
        layer.set_adder_fraction(fraction)
        torch.testing.assert_close(compiled(x), layer(x))
    assert len(graphs) == 3


def test_compiled_network_has_no_graph_break():
    model = AdderResNet(18, stem_channels=8, base_channels=8)
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(
        copy.deepcopy(model), backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(
        compiled(x)[0], model(x)[0], rtol=1e-3, atol=1e-3)


def test_exported_classifier():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='AdderResNet', depth=18, stem_channels=8,
                          base_channels=8),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64,
                      topk=(1, )))).eval()
    x = torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (x, ))
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-3,
                               atol=1e-3)
    names = {str(node.target) for node in exported.graph.nodes}
    assert 'mmadder.adder_conv2d.default' in names


# ------------------------------------------------------- mixed precision --


def test_half_types_cannot_hold_adder_outputs():
    """Why autocast leaves them float32 unless they are centered."""
    spread = 4000 + torch.tensor([0., .9, 1.9, 2.9])
    assert spread.half().unique().numel() == 2  # steps of 2
    assert spread.bfloat16().unique().numel() == 1  # steps of 16


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_of_a_layer(dtype):
    model, x = make_block()
    adder = model.layers[0]
    with torch.autocast('cpu', dtype=dtype):
        y = adder(x.to(dtype))
        loss = model(x).square().sum()
    assert y.dtype == torch.float32
    torch.testing.assert_close(
        y, adder(x.to(dtype).float()), rtol=1e-3, atol=1e-2)
    loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def train(model, x, steps, scaler=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if scaler is None:
            set_loss_scale(1)
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss)  # the scale exists from the first use on
            set_loss_scale(scaler.get_scale())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize('scale', [2.**-8, 65536.])
def test_scaled_loss_trains_the_same(scale):
    """Scales are powers of two, so even the bits agree."""
    plain, x = make_block()
    scaled = copy.deepcopy(plain)
    scaler = torch.amp.GradScaler('cpu', init_scale=scale, growth_interval=99)
    start = [p.detach().clone() for p in plain.parameters()]
    expected = train(plain, x, 4)
    for a, b, before in zip(train(scaled, x, 4, scaler), expected, start):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.equal(a, before)


def test_scaled_loss_needs_its_scale_said():
    """Without it, adder weights stand still: what the test above guards."""
    plain, x = make_block()
    silent = copy.deepcopy(plain)
    before = silent.layers[0].weight.detach().clone()
    scaler = torch.amp.GradScaler('cpu', init_scale=65536.)
    optimizer = torch.optim.SGD(silent.parameters(), lr=0.05)
    scaler.scale(silent(x).square().mean()).backward()
    scaler.step(optimizer)
    moved = (silent.layers[0].weight - before).abs().max()
    train(plain, x, 1)
    assert moved < 1e-3 * (plain.layers[0].weight - before).abs().max()
