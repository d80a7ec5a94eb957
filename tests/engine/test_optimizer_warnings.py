"""The warnings of the first step, in a plain MMDetection run and alone."""
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from plain_detector import LINES, train
from torch import nn

from mmadder.layers import AdderConv2d

AWN_MESSAGE = 'adaptive weight normalization'
LOSS_MESSAGE = 'trained with a scaled loss'
CLIP_MESSAGE = 'clip_grad counts the gradients of adder weights'


@pytest.fixture
def run(voc, tmp_path):
    """Train from the plain config plus lines; return (log, runner)."""

    def run(name, lines=''):
        return train(tmp_path, voc, name, lines)

    return run


@pytest.fixture
def run_config():
    """Return a function that sets the text of the current run's config."""
    hub = MessageHub.get_current_instance()
    before = hub.get_info('cfg')
    yield lambda text: hub.update_info('cfg', text)
    hub.update_info('cfg', before)


def model(weight_norm='AWN', eta=.2):
    return nn.Sequential(
        AdderConv2d(3, 4, 3, weight_norm=weight_norm, eta=eta),
        nn.BatchNorm2d(4))


def step(optimizer, times=1):
    for _ in range(times):
        optimizer.step()


# ------------------------------------------------------------------- AWN --


def test_lines_of_the_warning_mend_a_plain_mmdet_config(run):
    log, _ = run('plain')
    assert log.count(AWN_MESSAGE) == 1
    assert 'WARNING' in log[:log.index(AWN_MESSAGE)].splitlines()[-1]
    assert LOSS_MESSAGE not in log
    log, runner = run('mended', LINES.search(log)[1])
    assert AWN_MESSAGE not in log
    groups = runner.optim_wrapper.optimizer.param_groups
    awn = {id(p) for name, p in runner.model.named_parameters()
           if '.awn.' in name}
    rates = {(group['initial_lr'], group['weight_decay']) for group in groups
             if id(group['params'][0]) in awn}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx((1e-7, 0))
    assert sum(group['initial_lr'] == .01 for group in groups) > 50


@pytest.mark.parametrize('lr_mult, warned', [
    (1., True), (.1, True), (1e-2, True), (1e-3, False), (1e-5, False),
    (0., False)])
def test_threshold(lr_mult, warned, warnings):
    net = model()
    wrapper = build_optim_wrapper(net, dict(
        optimizer=dict(type='SGD', lr=.1, weight_decay=1e-4),
        paramwise_cfg=dict(custom_keys={'.awn.': dict(lr_mult=lr_mult)})))
    warnings.clear()
    step(wrapper.optimizer, times=3)
    assert len(warnings) == warned
    if warned:
        assert f'{lr_mult:.2g} times the learning rate' in warnings[0]
        assert "dict(lr_mult=1e-5, decay_mult=0.)" in warnings[0]


def test_each_optimizer_is_checked_once(warnings):
    net = model()
    step(torch.optim.SGD(net.parameters(), lr=.1), times=3)
    assert len(warnings) == 1
    step(torch.optim.Adam(net.parameters()), times=3)
    assert len(warnings) == 2


def test_without_weight_decay_no_decay_mult_is_advised(warnings):
    """MMEngine: 'base_wd should not be None'."""
    net = model()
    step(torch.optim.SGD(net.parameters(), lr=.1))
    lines = LINES.search(warnings[0])[1]
    assert 'decay_mult' not in lines
    cfg = Config.fromstring(lines, '.py').optim_wrapper
    cfg.optimizer = dict(type='SGD', lr=.1)
    warnings.clear()
    step(build_optim_wrapper(net, cfg).optimizer)
    assert not any(AWN_MESSAGE in text for text in warnings)


def test_warm_up_that_starts_at_zero(warnings):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.)
    step(optimizer)
    assert not warnings
    optimizer.param_groups[0]['lr'] = 1e-6
    step(optimizer, times=2)
    assert len(warnings) == 1


@pytest.mark.parametrize('weight_norm', [None, 'WS'])
def test_silent_without_awn(weight_norm, warnings):
    net = model(weight_norm)
    step(torch.optim.SGD(net.parameters(), lr=.1))
    assert not warnings


def test_silent_when_awn_does_not_train(warnings):
    net = model()
    net[0].awn.requires_grad_(False)
    step(torch.optim.SGD(net.parameters(), lr=.1))
    other = model()  # alive, but not this optimizer's
    step(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=.1))
    assert not warnings and other[0] in AdderConv2d.instances


# ------------------------------------------------------------ loss scale --


def test_accumulation_without_the_hook(run):
    lines = ('optim_wrapper = dict(accumulative_counts=2, paramwise_cfg=dict('
             "custom_keys={'.awn.': dict(lr_mult=1e-5)}))\n")
    log, _ = run('missing', lines)
    assert log.count(LOSS_MESSAGE) == 1 and AWN_MESSAGE not in log
    log, _ = run('mended', lines + LINES.search(log)[1])
    assert LOSS_MESSAGE not in log


@pytest.mark.parametrize('config, eta, warned', [
    ("optim_wrapper = dict(type='AmpOptimWrapper')", .2, True),
    ("optim_wrapper = dict(type='AmpOptimWrapper')", None, False),
    ("optim_wrapper = dict(type='AmpOptimWrapper')\n"
     "custom_hooks = [dict(type='LossScaleHook')]", .2, False),
    ("optim_wrapper = dict(accumulative_counts=16)", .2, True),
    ("optim_wrapper = dict(accumulative_counts=1)", .2, False),
    ('', .2, False),
    (None, .2, False),
])
def test_loss_scale_is_found_in_the_config(
        config, eta, warned, warnings, run_config):
    run_config(config)
    net = model(None, eta)
    step(torch.optim.SGD(net.parameters(), lr=.1))
    assert len(warnings) == warned
    assert all(LOSS_MESSAGE in text for text in warnings)


# -------------------------------------------------------------- clipping --


def test_clipping_without_the_hook(run):
    lines = ('optim_wrapper = dict(clip_grad=dict(max_norm=35), '
             'paramwise_cfg=dict('
             "custom_keys={'.awn.': dict(lr_mult=1e-5)}))\n")
    log, _ = run('missing', lines)
    assert log.count(CLIP_MESSAGE) == 1 and AWN_MESSAGE not in log
    log, _ = run('mended', lines + LINES.search(log)[1])
    assert CLIP_MESSAGE not in log


@pytest.mark.parametrize('config, eta, warned', [
    ('optim_wrapper = dict(clip_grad=dict(max_norm=35))', .2, True),
    ("optim_wrapper = dict(clip_grad=dict(type='value', clip_value=1))", .2,
     True),
    ('optim_wrapper = dict(clip_grad=dict(max_norm=35))', None, False),
    ('optim_wrapper = dict(clip_grad=dict(max_norm=35))\n'
     "custom_hooks = [dict(type='AdderClipGradHook')]", .2, False),
    ('optim_wrapper = dict(clip_grad=None)', .2, False),
    (None, .2, False),
])
def test_clipping_is_found_in_the_config(
        config, eta, warned, warnings, run_config):
    run_config(config)
    net = model(None, eta)
    step(torch.optim.SGD(net.parameters(), lr=.1))
    assert len(warnings) == warned
    for text in warnings:
        assert CLIP_MESSAGE in text
        assert 'norm of about 2.08' in text  # .2 * sqrt(4 * 27)
