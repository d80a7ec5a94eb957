"""Warn at the first optimizer step about settings that spoil adders.

Importing this module lets every optimizer check itself once. So it also
reaches a config that has nothing of ours but ``custom_imports`` and a
``conv_cfg``, and training loops without a runner.
"""
import logging
import math
import re
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from mmadder.layers import AdderConv2d

# A thousandth still trains in small experiments, a hundredth does not.
MAX_AWN_LR_MULT = 1e-3

AWN_LR_WARNING = """\
The scales and shifts of adaptive weight normalization (AWN) would train with \
{ratio:.2g} times the learning rate of the other parameters. The paper \
("Towards Stable and Robust AdderNets", Section 5.1) takes 1e-5; with much \
more, evaluation collapses to chance. Add to the config:

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={{'.awn.': dict(lr_mult=1e-5{decay})}}))

(Of several custom_keys in a parameter's name the longest wins.)"""

LOSS_SCALE_WARNING = """\
Adder layers are trained with a scaled loss ({cause}), but without \
LossScaleHook: their weights would get gradients of a wrong size. Add to the \
config:

custom_hooks = [dict(type='LossScaleHook')]"""

CLIP_GRAD_WARNING = """\
clip_grad counts the gradients of adder weights: local scaling gives them a \
norm of about {norm:.3g}, whatever the loss, so that a usual bound shrinks \
every step of all parameters. Add to the config:

custom_hooks = [dict(type='AdderClipGradHook')]

(In one list with your other custom_hooks.)"""

_checked = weakref.WeakSet()


def check_at_first_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Warn once per optimizer; a global step pre-hook of torch.optim."""
    if torch.compiler.is_compiling() or optimizer in _checked:
        return
    rates = [group.get('lr', 1) for group in optimizer.param_groups]
    if not any(rates):
        return  # a warm-up that starts at zero: look again at the next step
    _checked.add(optimizer)
    layers = find_adders(optimizer)
    for text in (check_awn_learning_rate(optimizer, layers),
                 check_loss_scale(layers),
                 check_clip_grad(layers)):
        if text is not None:
            print_log(text, logger='current', level=logging.WARNING)


def find_adders(optimizer: Optimizer) -> list[AdderConv2d]:
    """Return the AdderConv2d that an optimizer trains."""
    trained = {id(parameter) for group in optimizer.param_groups
               for parameter in group['params'] if parameter.requires_grad}
    return [layer for layer in AdderConv2d.instances
            if any(id(parameter) in trained
                   for parameter in layer.parameters())]


def check_awn_learning_rate(optimizer: Optimizer,
                            layers: Sequence[AdderConv2d]) -> str | None:
    """Return a warning if AWN parameters train about as fast as others.

    Args:
        optimizer: its learning rates may be those of a warm-up;
            only their ratio counts.
        layers: those that it trains.
    """
    awn = {id(parameter) for layer in layers if layer.awn is not None
           for parameter in layer.awn.parameters()}
    awn_rate = other_rate = 0
    for group in optimizer.param_groups:
        rate = float(group.get('lr', 0))
        ids = {id(parameter) for parameter in group['params']
               if parameter.requires_grad}
        if ids & awn:
            awn_rate = max(awn_rate, rate)
        if ids - awn:
            other_rate = max(other_rate, rate)
    if awn_rate <= other_rate * MAX_AWN_LR_MULT or not other_rate:
        return None
    # MMEngine refuses decay_mult where there is no weight decay.
    decays = optimizer.defaults.get('weight_decay')
    return AWN_LR_WARNING.format(
        ratio=awn_rate / other_rate, decay=', decay_mult=0.' * bool(decays))


def check_loss_scale(layers: Sequence[AdderConv2d]) -> str | None:
    """Return a warning if the runner's config lacks LossScaleHook."""
    config = _config()
    if 'LossScaleHook' in config or all(
            layer.eta is None for layer in layers):
        return None
    causes = re.search(
        r'AmpOptimWrapper|accumulative_counts=(?!1\b)\d+', config)
    return causes and LOSS_SCALE_WARNING.format(cause=causes[0])


def check_clip_grad(layers: Sequence[AdderConv2d]) -> str | None:
    """Return a warning if the runner's config clips gradients of adders."""
    config = _config()
    if 'clip_grad=dict(' not in config or 'AdderClipGradHook' in config:
        return None
    norm = math.sqrt(sum(
        layer.weight.numel() * layer.eta**2 for layer in layers
        if layer.weight.requires_grad and layer.eta is not None))
    return CLIP_GRAD_WARNING.format(norm=norm) if norm else None


def _config():
    return MessageHub.get_current_instance().get_info('cfg') or ''


register_optimizer_step_pre_hook(check_at_first_step)
