"""Planned models compute what fused ones compute, or run as they are."""
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.structures import DetDataSample
from mmengine.config import Config
from settling import relative_error, settle
from small_classifier import make_batches, make_classifier
from tiny_detector import BASE, SMALL
from torch import nn

from mmadder.errors import InputError
from mmadder.inference import Planned, fuse_adder_bn, make_plan
from mmadder.inference.fusion import FusedAdderConv2d
from mmadder.inference.plan import MOST_SIZES
from mmadder.models import (
    AdderFPN,
    AdderPAFPN,
    AdderResNet,
    AdderResNetCIFAR,
    build_model,
)

AWN = dict(type='AdderConv2d', weight_norm='AWN')
CENTERED = dict(AWN, center=True)


def planned_parts(model):
    return [module for module in model.modules()
            if isinstance(module, Planned)]


def check(model, *sizes):
    """A plan gives what the model gives; return it."""
    plan = make_plan(model)
    assert planned_parts(plan)
    for size in sizes:
        x = torch.rand(size)
        with torch.no_grad():
            outputs, first, plain = plan(x), plan(x), model(x)
            truth = copy.deepcopy(model).double()(x.double())
        assert len(outputs) == len(truth)
        for actual, again, unfused, expected in zip(
                outputs, first, plain, truth):
            assert torch.equal(actual, again)
            noise = relative_error(unfused, expected)
            assert relative_error(actual, expected) < max(1e-5, 3 * noise)
            assert noise < 1e-2
    return plan


# Centered random networks of more layers answer to noise alone.
@pytest.mark.parametrize('depth, conv_cfg', [
    (18, AWN), (50, AWN), (18, CENTERED)])
@pytest.mark.parametrize('channels', [16, 8])
def test_resnet(depth, channels, conv_cfg):
    torch.manual_seed(0)
    model = settle(
        AdderResNet(depth, base_channels=channels, stem_channels=channels,
                    out_indices=(0, 2, 3), conv_cfg=conv_cfg),
        torch.rand(4, 3, 72, 64))
    plan = check(model, (2, 3, 72, 64), (3, 3, 72, 64), (1, 3, 71, 90))
    kinds = list(plan.graph.kinds.values())
    assert kinds.count('adder') == {18: 19, 50: 52}[depth]
    outside = plan.graph.outside()
    assert outside == ([] if channels == 16 else [
        'conv1 (Conv2d)', 'bn1 (BatchNorm2d)', 'relu (ReLU)',
        'maxpool (MaxPool2d)'])


@pytest.mark.parametrize('batch', [1, 5])
def test_resnet_of_cifar(batch):
    torch.manual_seed(0)
    model = settle(AdderResNetCIFAR(20), torch.rand(4, 3, 32, 32))
    plan = check(model, (batch, 3, 32, 32))
    assert plan.graph.outside() == []


class Features(nn.Sequential):
    """Backbone and neck."""


@pytest.mark.parametrize('neck, sums', [(AdderFPN, 3), (AdderPAFPN, 6)])
def test_pyramids(neck, sums):
    torch.manual_seed(0)
    model = settle(Features(
        AdderResNet(18, base_channels=16, stem_channels=16,
                    out_indices=(0, 1, 2, 3)),
        neck([16, 32, 64, 128], 16, num_outs=5)), torch.rand(4, 3, 70, 64))
    plan = check(model, (2, 3, 70, 64), (1, 3, 96, 81))
    assert list(plan.graph.kinds.values()).count('add') == sums
    assert len(plan.graph.outside()) == 1  # the last level's subsampling


def test_classifier():
    model = make_classifier()
    plan = make_plan(model)
    assert isinstance(plan.backbone, Planned)
    batch, = make_batches(1)
    with torch.no_grad():
        ours, theirs = plan.test_step(batch), model.test_step(batch)
    for actual, expected in zip(ours, theirs):
        torch.testing.assert_close(
            actual.pred_score, expected.pred_score, rtol=1e-3, atol=1e-5)


def test_detector(tmp_path):
    (tmp_path / 'tiny.py').write_text(f'_base_ = {str(BASE)!r}\n{SMALL}')
    torch.manual_seed(0)
    model = build_model(Config.fromfile(tmp_path / 'tiny.py'))
    x = torch.rand(2, 3, 96, 128)
    features = settle(nn.Sequential(model.backbone, model.neck), x)
    model.eval()
    plan = make_plan(model)
    assert isinstance(plan.backbone, Planned)
    with torch.no_grad():
        for actual, expected in zip(plan.extract_feat(x), features(x)):
            assert relative_error(actual, expected) < 1e-4
    sample = DetDataSample(metainfo=dict(
        img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1., 1.)))
    data = dict(inputs=[torch.randint(256, (3, 96, 128), dtype=torch.uint8)],
                data_samples=[sample])
    result, = plan.test_step(data)
    assert result.pred_instances.bboxes.shape[1] == 4
    assert 'Planned(_Joined: 27 adders, 3 sums; outside: ' in repr(plan)


def small(conv_cfg=AWN, **kwargs):
    torch.manual_seed(0)
    return settle(AdderResNetCIFAR(20, conv_cfg=conv_cfg, **kwargs),
                  torch.rand(4, 3, 32, 32))


def test_the_model_stays_as_it_is():
    model = small()
    before = copy.deepcopy(model.state_dict())
    make_plan(model)
    assert model.train() is model
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_fused_model_is_copied():
    fused = fuse_adder_bn(small())
    plan = make_plan(fused)
    assert planned_parts(plan) and not planned_parts(fused)
    assert {id(p) for p in plan.buffers()}.isdisjoint(
        id(p) for p in fused.buffers())


def test_few_sizes_are_kept():
    plan = make_plan(small())
    for height in range(8, 8 + MOST_SIZES + 3):
        assert plan(torch.rand(1, 3, height, 9))[0].shape == (
            1, 64, -(-height // 4), 3)
    assert len(plan._steps) == MOST_SIZES
    plan(torch.rand(1, 3, 8, 9))  # no longer kept
    assert len(plan._steps) == MOST_SIZES


def test_an_empty_batch():
    assert make_plan(small())(torch.rand(0, 3, 32, 32))[0].shape == (
        0, 64, 8, 8)


def test_copies_plan_anew():
    plan = make_plan(small())
    x = torch.rand(1, 3, 32, 32)
    expected, = plan(x)
    for other in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert torch.equal(other(x)[0], expected)


def test_loaded_weights_are_used():
    torch.manual_seed(3)
    one, x = make_plan(small()), torch.rand(1, 3, 32, 32)
    torch.manual_seed(4)
    model = settle(AdderResNetCIFAR(20), 3 * torch.rand(4, 3, 32, 32))
    other = make_plan(model)
    one(x)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(x)[0], other(x)[0])


@pytest.mark.parametrize('change', ['load', 'in place', 'another tensor'])
def test_weights_that_change_inside_are_used(change):
    """The plan's copies of them would be stale."""
    plan, x = make_plan(small()), torch.rand(1, 3, 32, 32)
    before, = plan(x)
    layer = [module for module in plan.modules()
             if isinstance(module, FusedAdderConv2d)][5]
    if change == 'load':
        state = layer.state_dict()
        layer.load_state_dict({name: 2 * value
                               for name, value in state.items()})
    elif change == 'in place':
        layer.scale.mul_(2)
    else:
        layer.scale = 2 * layer.scale
    after, = plan(x)
    assert relative_error(after, before) > 1e-3
    assert torch.equal(after, copy.deepcopy(plan)(x)[0])


def test_another_default_dtype(default_dtype):
    model, x = small(), torch.rand(1, 3, 32, 32)
    expected, = make_plan(model)(x)
    default_dtype(torch.float64)
    actual, = make_plan(model)(x)
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def runs_as_it_is(plan, x):
    """Whether a call of a plan leaves no steps behind."""
    part, = planned_parts(plan)
    before = len(part._steps)
    with torch.no_grad():
        plan(x)
    return len(part._steps) == before


def test_other_dtypes_run_as_they_are():
    plan = make_plan(small())
    x = torch.rand(1, 3, 32, 32)
    expected, = plan(x)
    actual, = plan.double()(x.double())
    assert actual.dtype == torch.float64
    assert relative_error(actual, expected) < 1e-4
    assert runs_as_it_is(plan, x.double())


def test_hooks_of_later_are_called():
    plan, x, seen = make_plan(small()), torch.rand(1, 3, 32, 32), []
    expected, = plan(x)
    handle = plan.module.layer2.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape))
    assert relative_error(plan(x)[0], expected) < 1e-4
    assert seen == [(1, 32, 16, 16)]
    handle.remove()
    assert torch.equal(plan(x)[0], expected) and len(seen) == 1


def test_hooks_of_before_stay_outside():
    model, seen = small(), []
    model.layer2.register_forward_hook(
        lambda module, inputs, output: seen.append(output))
    plan, x = make_plan(model), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        for _ in range(2):
            assert relative_error(plan(x)[0], model(x)[0]) < 1e-4
    assert len(seen) == 4
    assert plan.graph.outside() == ['layer2 (ResLayer)']


def test_gradients_are_refused():
    plan = make_plan(small())
    with pytest.raises(RuntimeError, match='no gradient'):
        plan(torch.rand(1, 3, 32, 32, requires_grad=True))
    with pytest.raises(RuntimeError, match='cannot be trained'):
        plan.train()


class Peeking(nn.Module):
    """Looks at values, as no plan can."""

    def __init__(self):
        super().__init__()
        self.backbone = small()

    def forward(self, x):
        features, = self.backbone(x)
        return features if features.sum() > 1e9 else features + 1


def test_what_cannot_be_traced_runs_around_the_plan():
    model = Peeking().eval()
    plan, x = make_plan(model), torch.rand(1, 3, 32, 32)
    assert isinstance(plan.backbone, Planned)
    with torch.no_grad():
        assert relative_error(plan(x), model(x)) < 1e-4


def test_what_is_left_out_is_said(monkeypatch):
    torch.manual_seed(0)
    model = settle(nn.Sequential(
        ConvModule(3, 16, 3, conv_cfg=AWN, norm_cfg=dict(type='BN')),
        nn.Sigmoid()), torch.rand(4, 3, 9, 9))
    said = []
    monkeypatch.setattr(
        'mmadder.inference.plan.print_log',
        lambda text, **kwargs: said.append(text))
    plan = make_plan(model)
    assert not planned_parts(plan)
    assert said == ['make_plan: Sequential runs outside of the plan: its '
                    'adders lie apart']


CONV = dict(conv_cfg=AWN, norm_cfg=dict(type='BN'))


def with_groups():
    torch.manual_seed(0)
    return settle(nn.Sequential(
        ConvModule(3, 16, 3, **CONV), ConvModule(16, 32, 3, **CONV),
        ConvModule(32, 32, 3, groups=4, **CONV),
        ConvModule(32, 16, 1, **CONV), ConvModule(16, 17, 3, **CONV)),
        torch.rand(4, 3, 20, 21))


def test_groups_run_outside():
    model = with_groups()
    plan, x = make_plan(model), torch.rand(2, 3, 20, 21)
    assert plan.graph.outside() == ['2 (FusedAdderConv2d)']
    with torch.no_grad():
        assert relative_error(plan(x), model(x)) < 1e-5


class Around(nn.Module):
    """A map that is read again behind a layer outside of the plan."""

    def __init__(self):
        super().__init__()
        self.one = ConvModule(8, 16, 3, padding=1, **CONV)
        self.two = ConvModule(16, 16, 3, padding=1, **CONV)
        self.groups = ConvModule(16, 16, 3, padding=1, groups=4, **CONV)
        self.three = ConvModule(16, 16, 3, padding=1, **CONV)
        self.four = ConvModule(16, 16, 3, padding=1, **CONV)

    def forward(self, x):
        kept = self.two(self.one(x))
        return self.four(self.three(self.groups(kept)) + kept)


def test_threads_take_turns():
    """Maps are shared, also while something runs outside of the plan."""
    torch.manual_seed(0)
    plan = make_plan(settle(Around(), torch.rand(4, 8, 20, 21)))
    assert plan.graph.outside() == ['groups (FusedAdderConv2d)']
    inputs = torch.rand(4, 1, 8, 20, 21)
    with torch.no_grad():
        expected = [plan(x) for x in inputs]

        def differs(i):
            with torch.no_grad():
                return not torch.equal(plan(inputs[i % 4]), expected[i % 4])

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(differs, range(400))) == 0


class Resized(nn.Module):
    """Reads the size of a map that is left out of the plan."""

    def __init__(self):
        super().__init__()
        self.alone = ConvModule(3, 16, 3, stride=2, **CONV)
        self.conv = nn.Conv2d(16, 16, 1)
        self.one = ConvModule(16, 16, 3, **CONV)
        self.two = ConvModule(16, 16, 3, **CONV)

    def forward(self, x):
        small = self.alone(x)
        size = small.shape[2:]
        large = F.interpolate(small, size=(2 * size[0], size[1]))
        return self.two(self.one(torch.sigmoid(self.conv(large))))


def test_sizes_of_what_is_left_out():
    torch.manual_seed(0)
    model = settle(Resized(), torch.rand(4, 3, 20, 21))
    plan, x = make_plan(model), torch.rand(2, 3, 20, 21)
    assert len(plan.graph.adders()) == 2
    with torch.no_grad():
        assert relative_error(plan(x), model(x)) < 1e-3


@pytest.mark.parametrize('build, message', [
    (lambda: AdderResNetCIFAR(20), 'training mode'),
    (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)).eval(), 'no AdderConv2d'),
])
def test_errors(build, message):
    with pytest.raises(InputError, match=message):
        make_plan(build())
