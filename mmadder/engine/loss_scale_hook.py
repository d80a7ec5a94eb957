"""Keep local gradient scaling right under loss scaling and accumulation.

And, as an option, over several processes.
"""
import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS

from mmadder.errors import InputError
from mmadder.layers import (
    adder_fraction,
    get_averaging_group,
    set_averaging_group,
    set_loss_scale,
)

from .annealing_hook import AnnealingHook


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Tell the adder layers what their loss is multiplied with.

    ``custom_hooks = [dict(type='LossScaleHook')]`` belongs to every training
    of adder layers with AmpOptimWrapper or ``accumulative_counts``, and does
    no harm to others: the gradient of an adder weight is rescaled to a fixed
    size, so a GradScaler would later shrink it 65536-fold, and accumulation
    would add instead of average.

    Args:
        average_gradients: average the gradient of an adder weight over
            all processes before it is scaled, not only after, as AdderNet
            does. ``docs/scaling.md`` says what that gives, costs and needs.
            One process needs no averaging.

    Raises:
        InputError: before training, if layers are on the way from
            convolutions to adders and nothing (AnnealingHook) moves them.
        TypeError: before training, if the optimizer wrapper does not say how
            it scales the loss.
        ValueError: in training, if several optimizers scale it differently.
    """

    def __init__(self, average_gradients: bool = False):
        self.average_gradients = average_gradients

    def before_train(self, runner):
        get_loss_factor(runner.optim_wrapper)
        _require_way_to_adders(runner)
        averages = self.average_gradients and get_world_size() > 1
        set_averaging_group(dist.new_group() if averages else None)

    def after_train(self, runner):
        group = get_averaging_group()
        if group is not None:
            set_averaging_group(None)
            dist.destroy_process_group(group)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        set_loss_scale(get_loss_factor(runner.optim_wrapper))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        set_loss_scale(1)


def _require_way_to_adders(runner):
    fraction = adder_fraction(runner.model)
    if fraction < 1 and not any(
            isinstance(hook, AnnealingHook) for hook in runner.hooks):
        raise InputError(
            f'the weights to start from are not of adders yet (adder_fraction '
            f'{fraction:.3g}), and would stay so; add to custom_hooks: '
            "dict(type='AnnealingHook', start=0., end=0.6)")


def get_loss_factor(optim_wrapper: OptimWrapper | OptimWrapperDict) -> float:
    """Return what an optimizer wrapper multiplies the next loss with.

    Args:
        optim_wrapper: AmpOptimWrapper has a gradient scaler; any may
            accumulate gradients.

    Returns:
        Scale of the GradScaler / number of accumulated iterations;
        fewer of them at the end of the training.

    Raises:
        TypeError: another wrapper, such as DeepSpeed's or Apex's.
        ValueError: the factors of an OptimWrapperDict differ.
    """
    if isinstance(optim_wrapper, OptimWrapperDict):
        factors = {name: get_loss_factor(wrapper)
                   for name, wrapper in optim_wrapper.items()}
        if len(set(factors.values())) > 1:
            raise ValueError(
                'adder layers need one loss scale, but the optimizer '
                f'wrappers have {factors}; give all the same loss_scale and '
                'accumulative_counts')
        return next(iter(factors.values()))
    if (not isinstance(optim_wrapper, OptimWrapper)
            or isinstance(optim_wrapper, ApexOptimWrapper)):
        raise TypeError(
            f'LossScaleHook cannot tell the loss scale of '
            f'{type(optim_wrapper).__name__}; use OptimWrapper or '
            'AmpOptimWrapper')
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    grad_scale = 1 if scaler is None else scaler.get_scale()
    return optim_wrapper.scale_loss(grad_scale)
