"""Local gradient scaling in MMEngine's runner, step by step."""
from types import SimpleNamespace

import pytest
import torch
from cpu_amp import CpuAmpOptimWrapper
from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmadder.engine.loss_scale_hook import LossScaleHook, get_loss_factor
from mmadder.layers import AdderConv2d, get_loss_scale, set_loss_scale

LR = .5
ETA = .3


class Model(BaseModel):
    """One adder whose loss differs much in size from sample to sample."""

    def __init__(self):
        super().__init__()
        self.conv = AdderConv2d(3, 4, 3, eta=ETA)

    def forward(self, inputs, factor, mode='loss'):
        output = self.conv(inputs)
        return dict(loss=(factor.view(-1, 1, 1, 1) * output.square()).sum())


class Recorder(Hook):
    """Keep the weight after every iteration."""

    def before_train(self, runner):
        self.weights = [runner.model.conv.weight.detach().clone()]

    def after_train_iter(self, runner, *args, **kwargs):
        self.weights.append(runner.model.conv.weight.detach().clone())


def samples(count):
    generator = torch.Generator().manual_seed(0)
    return [dict(inputs=torch.randn(3, 6, 6, generator=generator),
                 factor=torch.tensor(10.**(i % 3 - 1)))
            for i in range(count)]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=LR)


def train(tmp_path, wrapper_type, accumulative_counts, data):
    """Return the weights before the training and after each iteration."""
    torch.manual_seed(0)
    model, recorder = Model(), Recorder()
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,
        train_dataloader=dict(
            dataset=data, batch_size=1, num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=len(data)),
        optim_wrapper=wrapper_type(
            optimizer=sgd(model), accumulative_counts=accumulative_counts),
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[dict(type='LossScaleHook'), recorder])
    runner.train()
    return recorder.weights


def scaled_gradient(weight, sample):
    layer = AdderConv2d(3, 4, 3, eta=None)
    layer.weight.data = weight
    output = layer(sample['inputs'][None])
    grad, = torch.autograd.grad(
        (sample['factor'] * output.square()).sum(), layer.weight)
    return ETA * grad / grad.square().mean().sqrt()


@pytest.mark.parametrize('wrapper_type', [OptimWrapper, CpuAmpOptimWrapper])
@pytest.mark.parametrize('accumulative_counts', [1, 3])
def test_each_update_is_the_mean_of_scaled_gradients(
        tmp_path, wrapper_type, accumulative_counts):
    """Seven iterations: with accumulation one is left for the last update."""
    data = samples(7)
    weights = train(tmp_path, wrapper_type, accumulative_counts, data)
    expected = weights[0]
    for start in range(0, 7, accumulative_counts):
        part = data[start:start + accumulative_counts]
        expected = expected - LR * sum(
            scaled_gradient(expected, sample) for sample in part) / len(part)
        torch.testing.assert_close(
            weights[start + len(part)], expected, rtol=1e-4, atol=1e-5)
    assert get_loss_scale() == 1


def test_the_scale_lasts_for_one_iteration():
    hook = HOOKS.build(dict(type='LossScaleHook'))
    assert isinstance(hook, LossScaleHook)

    runner = SimpleNamespace(
        optim_wrapper=OptimWrapper(sgd(Model()), accumulative_counts=4))
    hook.before_train_iter(runner, 0)
    assert get_loss_scale() == .25
    hook.after_train_iter(runner, 0)
    assert get_loss_scale() == 1


def test_wrapper_dict_needs_one_factor():
    def build(*counts):
        return OptimWrapperDict(**{
            f'part{i}': OptimWrapper(sgd(Model()), accumulative_counts=count)
            for i, count in enumerate(counts)})

    assert get_loss_factor(build(1, 1)) == 1
    assert get_loss_factor(build(4, 4)) == .25
    with pytest.raises(ValueError, match="'part0': 1.0, 'part1': 0.5"):
        get_loss_factor(build(1, 2))


def test_other_wrappers_are_refused():
    with pytest.raises(TypeError, match='loss scale of DeepSpeedOptimWr'):
        get_loss_factor(DeepSpeedOptimWrapper(sgd(Model())))


def teardown_module():
    set_loss_scale(1)
