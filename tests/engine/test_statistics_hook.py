"""Recorded statistics against the same computed by hand."""
import json

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmadder.engine import StatisticsHook
from mmadder.engine.statistics_hook import Recorder
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d


class Net(BaseModel):
    """Convolution, adder with AWN, batch norm, ReLU; one layer unused."""

    def __init__(self, eta=0.2, bias=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, bias=False)
        self.adder = AdderConv2d(4, 6, 3, eta=eta, bias=bias,
                                 weight_norm='AWN')
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.unused = AdderConv2d(4, 6, 3)

    def forward(self, inputs, mode='loss'):
        features = self.relu(self.norm(self.adder(self.stem(inputs))))
        return dict(loss=features.square().mean())


@pytest.fixture
def inputs():
    return torch.randn(5, 3, 9, 8, generator=torch.manual_seed(0))


def record(net, inputs, calls=1):
    recorder = Recorder(net)
    sum(net(inputs)['loss'] for _ in range(calls)).backward()
    return recorder.close()


def test_moments_of_everything(inputs):
    net = Net()
    net.adder.awn.nu.data = torch.linspace(1, 2, 6)
    layers, _ = record(net, inputs)
    assert list(layers) == ['stem', 'adder']
    with torch.no_grad():
        stem = net.stem(inputs)
        feature = net.adder(stem)
        expected = dict(
            weight=net.adder.weight, filter=net.adder.normalized_weight,
            input=stem, feature=feature, normalized=nn.BatchNorm2d(6)(feature))
    adder = layers['adder']
    for name, tensor in expected.items():
        assert adder[f'{name}_mean'] == pytest.approx(
            tensor.mean().item(), rel=1e-4, abs=1e-5)
        assert adder[f'{name}_var'] == pytest.approx(
            tensor.var(correction=0).item(), rel=1e-4)
    channels = feature.transpose(0, 1).flatten(1)
    assert adder['feature_channel_var'] == pytest.approx(
        channels.var(1, correction=0).mean().item(), rel=1e-4)
    assert adder['bn_mean'] == pytest.approx(net.norm.running_mean.mean())
    assert adder['bn_var'] == pytest.approx(net.norm.running_var.mean())
    assert adder['nu_mean'] == pytest.approx(1.5)
    assert adder['upsilon_std'] == 0
    assert layers['stem']['kind'] == 'conv'
    assert 'bn_mean' not in layers['stem']


@pytest.mark.parametrize('bias', [False, True])
def test_gradients_before_and_behind_the_local_scaling(inputs, bias):
    net, plain = Net(bias=bias), Net(eta=None, bias=bias)
    plain.load_state_dict(net.state_dict())
    adder, unscaled = (record(model, inputs)[0]['adder']
                       for model in (net, plain))
    elements = net.adder.weight.numel()
    assert adder['grad_norm_scaled'] == pytest.approx(
        0.2 * elements**0.5, rel=1e-5)
    # AWN's backward is linear: the two differ by the scaling's factor.
    assert (adder['grad_norm_weight'] / adder['grad_norm_scaled']
            == pytest.approx(unscaled['grad_norm_weight']
                             / adder['grad_norm_raw'], rel=1e-4))
    assert adder['grad_norm_weight'] == pytest.approx(
        net.adder.weight.grad.norm().item(), rel=1e-5)
    assert 'grad_norm_raw' not in unscaled


def test_histograms_count_every_element(inputs):
    net = Net()
    _, histograms = record(net, inputs)
    feature = net.adder(net.stem(inputs)).detach().numpy()
    low, high = histograms['adder/feature/range']
    assert (low, high) == (feature.min(), feature.max())
    counts, _ = np.histogram(feature, 100, (low, high))
    assert histograms['adder/feature'].sum() == feature.size
    # Rounding may put an element into the next bin.
    assert np.abs(histograms['adder/feature'] - counts).sum() <= 10
    assert 'stem/normalized' not in histograms


def test_several_calls_count_together_and_nothing_stays_attached(inputs):
    net = Net()
    once, _ = record(net, inputs)
    twice, _ = record(net, inputs, calls=2)
    assert twice['adder']['feature_mean'] == pytest.approx(
        once['adder']['feature_mean'], rel=1e-5)
    for module in net.modules():
        assert not module._forward_hooks
    assert not net.adder.weight._backward_hooks


def test_several_levels_count_together(inputs):
    """As in the heads of a pyramid, with a norm for each level."""
    net, other = Net(), nn.BatchNorm2d(6)
    maps = [inputs, 100 * inputs[:2, :, :5]]
    outputs = [net.adder(net.stem(x)).detach() for x in maps]
    recorder = Recorder(net.add_module('other', other) or net)
    for x, norm in zip(maps, (net.norm, other)):
        norm(net.adder(net.stem(x)))
    found = recorder.close()[0]['adder']
    values = torch.cat([y.transpose(0, 1).flatten(1) for y in outputs], 1)
    expected = values.double().var(1, correction=0).mean().item()
    assert found['feature_channel_var'] == pytest.approx(expected, rel=1e-5)
    tracked = [norm.running_mean.mean() for norm in (net.norm, other)]
    assert found['bn_mean'] == pytest.approx(sum(tracked).item() / 2)


def test_an_empty_batch_counts_nothing(inputs):
    """A mask head without proposals runs on none."""
    net = Net()
    once, _ = record(net, inputs)
    recorder = Recorder(net)
    net.stem(inputs[:0])
    net.norm(net.adder(net.stem(inputs)))
    net.stem(inputs[:0])
    layers, histograms = recorder.close()
    assert layers['stem']['feature_mean'] == pytest.approx(
        once['stem']['feature_mean'])
    assert histograms['stem/feature'].sum() == 5 * 4 * 7 * 6
    recorder = Recorder(net)
    net.stem(inputs[:0]).sum().backward()
    assert recorder.close() == ({}, {})


def test_norm_without_tracked_statistics(inputs):
    net = Net()
    net.norm = nn.BatchNorm2d(6, track_running_stats=False)
    layers, _ = record(net, inputs)
    assert 'normalized_var' in layers['adder']
    assert 'bn_mean' not in layers['adder']


def test_numbers_that_are_none_become_null(inputs):
    layers, histograms = record(Net(), inputs * float('nan'))
    assert layers['adder']['feature_mean'] is None
    assert 'adder/feature' not in histograms
    json.dumps(layers, allow_nan=False)


def make_runner(folder, hook, train_cfg=None):
    data = [dict(inputs=torch.randn(3, 9, 8)) for _ in range(4)]
    return Runner(
        Net(), str(folder), dict(
            batch_size=2, dataset=data,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=5),
        custom_hooks=[hook], experiment_name=folder.name)


def read(runner):
    with open(f'{runner.log_dir}/vis_data/statistics.jsonl') as file:
        return [json.loads(line) for line in file]


def test_records_the_last_iteration_of_every_second_epoch(tmp_path):
    runner = make_runner(tmp_path / 'epochs', dict(
        type='StatisticsHook', interval=2, histogram_interval=2))
    runner.train()
    assert [(r['epoch'], r['iter']) for r in read(runner)] == [(2, 4), (4, 8)]
    folder = tmp_path / 'epochs' / runner.timestamp / 'vis_data/histograms'
    assert [path.name for path in folder.iterdir()] == ['epoch_4.npz']


def test_counts_iterations(tmp_path):
    loop = dict(by_epoch=False, max_iters=5)
    runner = make_runner(tmp_path / 'iterations', StatisticsHook(
        interval=2, by_epoch=False), loop)
    runner.train()
    assert [record['iter'] for record in read(runner)] == [2, 4]
    runner = make_runner(tmp_path / 'wrong', StatisticsHook(), loop)
    with pytest.raises(InputError, match='by_epoch=False'):
        runner.train()


@pytest.mark.parametrize('name', ['interval', 'histogram_interval'])
def test_refuses_an_interval_of_nothing(name):
    with pytest.raises(InputError, match=f'{name} of StatisticsHook'):
        StatisticsHook(**{name: 0})
