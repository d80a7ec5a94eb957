"""Clipping bounds the gradients of all parameters but the adders'."""
import copy

import numpy as np
import pytest
import torch
from cpu_amp import CpuAmpOptimWrapper
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from mmadder.engine import spare_adders
from mmadder.layers import AdderConv2d, set_loss_scale

ETA = .3
MAX_NORM = 35
ADDERS = ('plain.weight', 'awn.weight', 'awn.awn.nu', 'awn.awn.upsilon')


@pytest.fixture(autouse=True)
def loss_scale():
    yield
    set_loss_scale(1)


class Model(BaseModel):
    """Two adders between other layers."""

    def __init__(self, factor=1e4, eta=ETA):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.plain = AdderConv2d(8, 8, 3, bias=True, eta=eta)
        self.norm = nn.BatchNorm2d(8)
        self.awn = AdderConv2d(8, 8, 3, weight_norm='AWN', eta=eta)
        self.last_norm = nn.BatchNorm2d(8)
        self.factor = factor

    def forward(self, inputs, mode='loss'):
        x = self.norm(self.plain(self.stem(inputs)))
        x = self.last_norm(self.awn(x.relu()))
        return dict(loss=self.factor * (x - 1).pow(4).mean())


def make(wrapper_type=OptimWrapper, model=None, **clip_grad):
    torch.manual_seed(0)
    model = model or Model()
    return model, wrapper_type(
        optimizer=torch.optim.SGD(model.parameters(), lr=.1),
        clip_grad=clip_grad)


def gradients(model, optim_wrapper, inputs=None):
    """Return gradients of a step, as computed and as the optimizer saw."""
    raw, seen = {}, {}
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, name=name: raw.update({name: p.grad.clone()}))
    optim_wrapper.optimizer.register_step_pre_hook(
        lambda *args: seen.update({
            name: p.grad.clone() for name, p in model.named_parameters()}))
    if inputs is None:
        inputs = torch.rand(4, 3, 12, 12)
    optim_wrapper.update_params(model(inputs)['loss'])
    return raw, seen


def total_norm(tensors):
    return np.sqrt(sum(np.square(x.double().numpy()).sum() for x in tensors))


def rms(x):
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize('wrapper_type, scale', [
    (OptimWrapper, 1), (CpuAmpOptimWrapper, 65536)])
def test_others_are_clipped_to_the_norm(wrapper_type, scale):
    model, optim_wrapper = make(wrapper_type, max_norm=MAX_NORM)
    spare_adders(optim_wrapper)
    set_loss_scale(scale)
    raw, seen = gradients(model, optim_wrapper)
    others = [name for name in raw if name not in ADDERS]
    assert 'plain.bias' in others and len(others) == len(raw) - 4
    norm = total_norm(raw[name] for name in others) / scale
    assert norm > 3 * MAX_NORM
    for name in raw:
        expected = raw[name] / scale
        if name in others:
            expected = expected * (MAX_NORM / norm)
        torch.testing.assert_close(seen[name], expected)
    assert total_norm(seen[name] for name in others) <= MAX_NORM * 1.000001
    assert rms(seen['plain.weight']) == pytest.approx(ETA)
    assert MessageHub.get_current_instance().get_scalar(
        'train/grad_norm').current() == pytest.approx(norm, rel=1e-5)


def test_without_it_adders_are_clipped():
    model, optim_wrapper = make(max_norm=MAX_NORM)
    _, seen = gradients(model, optim_wrapper)
    assert rms(seen['plain.weight']) < ETA / 3


def test_others_are_clipped_by_value():
    model, optim_wrapper = make(type='value', clip_value=.01)
    spare_adders(optim_wrapper)
    raw, seen = gradients(model, optim_wrapper)
    for name in raw:
        torch.testing.assert_close(seen[name], (
            raw[name] if name in ADDERS else raw[name].clamp(-.01, .01)))


def test_adders_without_local_scaling_are_clipped():
    model, optim_wrapper = make(model=Model(eta=None), max_norm=MAX_NORM)
    spare_adders(optim_wrapper)
    raw, seen = gradients(model, optim_wrapper)
    norm = total_norm(raw.values())
    for name in raw:
        torch.testing.assert_close(seen[name], raw[name] * (MAX_NORM / norm))


def test_a_model_of_adders_only():
    model, optim_wrapper = make(model=nn.Sequential(
        AdderConv2d(3, 4, 3, weight_norm='AWN', eta=ETA)), max_norm=1e-3)
    spare_adders(optim_wrapper)
    loss = model(torch.rand(2, 3, 5, 5)).square().sum()
    loss.backward()
    expected = model[0].weight.grad.clone()
    optim_wrapper.step()
    assert torch.equal(model[0].weight.grad, expected) and expected.any()


def test_distributed_model(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = MMDistributedDataParallel(Model(), broadcast_buffers=False)
        model, optim_wrapper = make(model=wrapped, max_norm=MAX_NORM)
        spare_adders(optim_wrapper)
        _, seen = gradients(model.module, optim_wrapper)
    finally:
        torch.distributed.destroy_process_group()
    assert rms(seen['plain.weight']) == pytest.approx(ETA)
    assert total_norm(x for name, x in seen.items() if name not in ADDERS
                      ) == pytest.approx(MAX_NORM, rel=1e-5)


def test_several_wrappers_and_a_second_call():
    _, clipping = make(max_norm=MAX_NORM)
    plain = OptimWrapper(torch.optim.SGD(Model().parameters(), lr=.1))
    wrappers = OptimWrapperDict(clipping=clipping, plain=plain)
    spare_adders(wrappers)
    spared = clipping.clip_func
    assert spared is not torch.nn.utils.clip_grad_norm_
    assert not hasattr(plain, 'clip_func')
    spare_adders(wrappers)
    assert clipping.clip_func is spared


class Recorder(Hook):
    """Keep the parameters after every iteration."""

    def before_train(self, runner):
        self.states = [copy.deepcopy(runner.model.state_dict())]

    def after_train_iter(self, runner, *args, **kwargs):
        self.states.append(copy.deepcopy(runner.model.state_dict()))

    def steps(self, name):
        return [total_norm([(after[name] - before[name])])
                for before, after in zip(self.states, self.states[1:])]


def train(work_dir, hooks, max_norm):
    torch.manual_seed(0)
    # The gradients of the other layers are far below the bound.
    model, recorder = Model(factor=1e-5), Recorder()
    inputs = torch.rand(12, 3, 12, 12)
    Runner(
        model=model,
        work_dir=str(work_dir),
        experiment_name=work_dir.name,
        train_dataloader=dict(
            dataset=[dict(inputs=x) for x in inputs], batch_size=4,
            num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=3),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=.1),
            clip_grad=dict(max_norm=max_norm)),
        default_hooks=dict(checkpoint=None, logger=None),
        randomness=dict(seed=0),  # it initializes the weights once more
        custom_hooks=[*hooks, recorder]).train()
    return recorder


def test_steps_of_a_training(tmp_path):
    """Plain clipping shrinks all steps, those of small gradients too."""
    hook = dict(type='AdderClipGradHook')
    ours = train(tmp_path / 'ours', [hook], .002)
    free = train(tmp_path / 'free', [], 1e9)
    plain = train(tmp_path / 'plain', [], .002)
    size = .1 * ETA * np.sqrt(8 * 8 * 9)
    assert ours.steps('plain.weight') == pytest.approx([size] * 3, rel=1e-4)
    for name in ('stem.weight', 'norm.bias', 'plain.weight', 'awn.weight'):
        assert ours.steps(name) == pytest.approx(free.steps(name), rel=1e-4)
        assert free.steps(name)[0] > 2000 * plain.steps(name)[0]
