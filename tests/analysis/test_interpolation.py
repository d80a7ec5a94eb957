"""The line between two checkpoints, against an interpolation by hand."""
import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmadder.analysis import interpolation as module
from mmadder.analysis.checkpoint_pair import interpolate, load_pair
from mmadder.analysis.interpolation import (
    Interpolation,
    choose_metric,
    curve_points,
    read_result,
    summarize,
)
from mmadder.analysis.testing import (
    TestSet,
    reestimate_on_batches,
    subset,
    test_batch,
    training_batches,
)
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import build_model

CONFIG = '''
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[127.] * 3, std=[60.] * 3)
model = dict(type='ImageClassifier', backbone=dict(type='TinyAdder'),
             head=dict(type='LinearClsHead', num_classes=10, in_channels=6))
loader = dict(
    batch_size=8, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CIFAR10Images', data_root='{root}', split='train',
                 pipeline=[dict(type='PackInputs')]))
train_dataloader = loader
test_dataloader = loader
test_evaluator = dict(type='Accuracy', topk=(1, ))
'''


@MODELS.register_module(force=True)
class TinyAdder(nn.Module):

    def __init__(self, weight_norm=None):
        super().__init__()
        self.conv = AdderConv2d(3, 6, 3, stride=4, weight_norm=weight_norm)
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x):
        return (self.bn(self.conv(x)).mean((2, 3)), )


@pytest.fixture
def cfg(cifar):
    return Config.fromstring(CONFIG.format(root=cifar), '.py')


@pytest.fixture
def pair(cfg, tmp_path):
    """Two checkpoints, apart enough for the accuracy to change between."""
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(cfg)
        nn.init.normal_(model.head.fc.weight)
        reestimate_on_batches(model, training_batches(cfg, 2))
        model.backbone.bn.num_batches_tracked.fill_(10 + seed)
        names.append(str(tmp_path / f'epoch_{seed}.pth'))
        torch.save(dict(state_dict=model.state_dict(), meta={}), names[-1])
    return names


def accuracy_by_hand(cfg, model, state_dict):
    model.load_state_dict(state_dict)
    model.eval()
    dataset = TestSet(cfg).loader.dataset
    inputs = torch.stack([sample['inputs'] for sample in dataset]).float()
    labels = torch.tensor(dataset.get_gt_labels())
    with torch.no_grad():
        scores = model.head.fc(model.backbone((inputs - 127) / 60)[0])
    return 100 * (scores.argmax(1) == labels).float().mean().item()


def test_metrics_along_the_line(cfg, pair, tmp_path):
    model = build_model(cfg)
    states = load_pair(model, pair)
    results = Interpolation(model, states, TestSet(cfg), points=4,
                            path=tmp_path / 'a.json').run()
    line = curve_points(results, 'interpolated', 'accuracy/top1')
    by_hand = []
    for i in range(6):
        t = i / 5
        mixed = {key: (1 - t) * value + t * states[1][key]
                 if value.is_floating_point() else value
                 for key, value in states[0].items()}
        by_hand.append((t, accuracy_by_hand(cfg, model, mixed)))
    np.testing.assert_allclose(line, by_hand, rtol=1e-5)
    assert len({y for _, y in line}) > 1
    summary = results['summary']['interpolated']['accuracy/top1']
    between = [y for t, y in by_hand if t not in (0, 1)]
    assert summary['variance'] == pytest.approx(
        np.mean((np.array(between) - np.mean(between))**2), rel=1e-4)
    assert summary['endpoints'] == [line[0][1], line[-1][1]]
    assert list(results['curves']) == ['interpolated']


def test_buffers_are_interpolated_and_counters_are_not(pair):
    first, second = (torch.load(name)['state_dict'] for name in pair)
    mixed = interpolate(first, second, .25)
    key = 'backbone.bn.running_var'
    torch.testing.assert_close(
        mixed[key], .75 * first[key] + .25 * second[key])
    assert mixed['backbone.bn.num_batches_tracked'] == 10
    for t, end in ((0., first), (1., second)):
        for key, value in interpolate(first, second, t).items():
            if value.is_floating_point():
                assert torch.equal(value, end[key])


def test_reestimated_statistics(cfg, pair):
    model = build_model(cfg)
    before = copy.deepcopy(model.state_dict())
    batches = training_batches(cfg, 2)
    reestimate_on_batches(model, batches)
    means, variances = [], []
    for batch in batches:
        data = model.data_preprocessor(batch, True)
        output = model.backbone.conv(data['inputs']).transpose(0, 1).flatten(1)
        means.append(output.mean(1))
        variances.append(output.var(1))  # unbiased, as PyTorch tracks
    norm = model.backbone.bn
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var,
                               torch.stack(variances).mean(0))
    assert norm.momentum == .1 and not norm.training
    for key, value in model.state_dict().items():
        if 'bn.' not in key:
            assert torch.equal(value, before[key])


def test_goes_on_where_it_stopped(cfg, pair, tmp_path, monkeypatch):
    model = build_model(cfg)
    states, path = load_pair(model, pair), tmp_path / 'a.json'

    def make(**settings):
        return Interpolation(model, states, TestSet(cfg), 2,
                             training_batches(cfg, 1), path, settings)

    evaluate, calls = TestSet.evaluate, []

    def counted(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return evaluate(self, *args)

    monkeypatch.setattr(TestSet, 'evaluate', counted)
    with pytest.raises(KeyboardInterrupt):
        make(seed=0).run()
    assert len(read_result(path)['curves']['interpolated']) == 2
    results = make(seed=0).run()
    assert len(calls) == 9  # of 8 points, one was interrupted
    assert list(results['curves']['reestimated']) == list(
        results['curves']['interpolated'])
    make(seed=0).run()
    assert len(calls) == 9
    with pytest.raises(InputError, match=r'of another run, with seed 0 \(now'):
        make(seed=1)


def test_images_are_a_random_choice(cfg):
    dataset = TestSet(cfg).loader.dataset
    chosen = TestSet(cfg, images=10, seed=1)
    assert len(chosen) == 10
    labels = chosen.loader.dataset.get_gt_labels().tolist()
    assert len(set(labels)) > 5  # the set is sorted by class
    assert labels == TestSet(
        cfg, images=10, seed=1).loader.dataset.get_gt_labels().tolist()
    assert len(test_batch(cfg, 5)['inputs']) == 5
    with pytest.raises(InputError, match='99 images were asked for, .* 20'):
        subset(dataset, 99)
    cfg.test_evaluator = dict(type='CocoMetric', ann_file='a.json')
    with pytest.raises(InputError, match='leave --images out'):
        TestSet(cfg, images=10)


def test_checkpoints_of_different_architectures(cfg, pair, tmp_path):
    model = build_model(cfg)
    saved = torch.load(pair[1])
    other = str(tmp_path / 'other.pth')

    def save(state_dict):
        torch.save(dict(state_dict=state_dict), other)

    save({**saved['state_dict'], 'backbone.conv.awn.nu': torch.ones(6)})
    with pytest.raises(InputError, match=r'different architectures(.|\n)*'
                       r'1 keys only in the second: backbone.conv.awn.nu'):
        load_pair(model, (pair[0], other))
    save({**saved['state_dict'], 'head.fc.weight': torch.ones(10, 7)})
    with pytest.raises(InputError, match=r'1 of different shapes: head.fc.'
                       r'weight \(\(10, 6\) and \(10, 7\)\)'):
        load_pair(model, (pair[0], other))
    with pytest.raises(InputError, match='1 keys of another shape: head.fc'):
        load_pair(model, (other, other))
    with pytest.raises(InputError, match='none.pth does not exist'):
        load_pair(model, (pair[0], str(tmp_path / 'none.pth')))


def test_shares_are_shown_in_percent():
    results = dict(curves=dict(interpolated={
        f'{t:.4f}': {'pascal_voc/mAP': y, 'pascal_voc/AP50': y, 'loss': y}
        for t, y in ((0, .9), (.5, .2), (.25, .4), (1, .8))}))
    summary = summarize(results)['interpolated']
    assert summary['pascal_voc/mAP']['variance'] == pytest.approx(100)
    assert summary['loss']['variance'] == pytest.approx(.01)
    assert summary['pascal_voc/AP50']['least'] == pytest.approx(20)
    assert choose_metric(results) == 'pascal_voc/mAP'
    assert choose_metric(results, 'loss') == 'loss'
    with pytest.raises(InputError, match="'accuracy' was not measured"):
        choose_metric(results, 'accuracy')
    results['summary'] = summarize(results)
    figure = module.plot_interpolations(dict(a=results))
    assert 'variance 100' in figure.axes[0].get_legend().texts[0].get_text()


def test_files_of_something_else(tmp_path):
    path = tmp_path / 'a.json'
    with pytest.raises(InputError, match='does not exist'):
        read_result(path)
    for content in ('[]', '{', json.dumps(dict(settings=1, curves=2))):
        path.write_text(content)
        with pytest.raises(InputError, match='no result of'):
            read_result(path)
    with pytest.raises(InputError, match='no points yet'):
        choose_metric(dict(curves={}))
