"""What a plan knows of a forward."""
import operator

import pytest
import torch
import torch.nn.functional as F
from four_adders import FourAdders, adder
from torch import nn

from mmadder.inference import fuse_adder_bn
from mmadder.inference.plan_graph import PlanGraph, trace


def graph_of(*args):
    return PlanGraph(fuse_adder_bn(FourAdders(*args).eval()))


@pytest.mark.parametrize('between, kind', [
    (lambda net, x: net.pool(x), 'max_pool'),
    (lambda net, x: x + net.one(x), 'add'),
    (lambda net, x: torch.add(x, net.one(x)), 'add'),
    (lambda net, x: x.add(net.one(x)), 'add'),
    (lambda net, x: x + F.interpolate(net.pool(x), scale_factor=2),
     'upsample'),
])
def test_known(between, kind):
    graph = graph_of(between)
    assert kind in graph.kinds.values()
    assert graph.outside() == ['stem (Identity)']


@pytest.mark.parametrize('between, outside', [
    (lambda net, x: net.act(x), 'act (ReLU)'),
    (lambda net, x: x * 2, 'mul'),
    (lambda net, x: x + 1, 'add'),
    (lambda net, x: torch.add(x, net.one(x), alpha=2), 'add'),
    (lambda net, x: x + F.interpolate(
        net.pool(x), scale_factor=2, mode='bilinear'), 'interpolate'),
    (lambda net, x: F.interpolate(x, scale_factor=2), 'interpolate'),
    (lambda net, x: x.flatten(2).unflatten(2, x.shape[2:]), 'flatten'),
])
def test_outside(between, outside):
    graph = graph_of(between)
    assert outside in graph.outside()
    assert len(graph.adders()) >= 4


@pytest.mark.parametrize('between', [
    lambda net, x: net.act(x) + net.one(x),
    lambda net, x: F.relu(x, inplace=True) + net.one(x),
    lambda net, x: x.relu_() + net.one(x),
    lambda net, x: operator.iadd(x, net.one(x)) + net.two(x),
    lambda net, x: operator.imul(x, 2) + net.two(x),
])
def test_changes_in_place_are_refused(between):
    assert 'changes in place what other layers read' in trace(
        fuse_adder_bn(FourAdders(between).eval()))


def stem(**kwargs):
    return nn.Sequential(nn.Conv2d(3, 16, 3, **kwargs), nn.BatchNorm2d(16),
                         nn.ReLU(), nn.MaxPool2d(3, 2, 1))


@pytest.mark.parametrize('layers, length', [
    (stem(), 4), (stem()[:3], 3), (stem()[:1], 1),
    (nn.Sequential(stem()[0], nn.ReLU()), 2),
])
def test_stems(layers, length):
    graph = graph_of(lambda net, x: x, layers)
    chain, = graph.stems.values()
    assert len(chain) == length and graph.outside() == []


@pytest.mark.parametrize('layers', [
    stem(padding='same'), stem(padding=1, padding_mode='reflect'),
    nn.Sequential(*stem()[:2], nn.Sigmoid()),
    nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(2, 16)),
    nn.Sequential(nn.Conv2d(3, 16, 3), nn.MaxPool2d(2, ceil_mode=True)),
])
def test_no_stems(layers):
    graph = graph_of(lambda net, x: x, layers)
    assert not graph.stems and 'stem.0 (Conv2d)' in graph.outside()


def test_two_arguments():
    class Two(FourAdders):
        def forward(self, x, scale=1):
            return super().forward(x * scale)

    assert 'more than one argument' in trace(fuse_adder_bn(
        Two(lambda net, x: x).eval()))


def test_decisions_about_values():
    assert 'torch.fx cannot trace it' in trace(fuse_adder_bn(FourAdders(
        lambda net, x: x if x.sum() > 0 else -x).eval()))


def test_lonely_adders():
    model = nn.Sequential(adder(), nn.Sigmoid(), adder(), nn.Sigmoid())
    assert trace(fuse_adder_bn(model.eval())) == 'its adders lie apart'
