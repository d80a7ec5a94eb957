"""Begin as a convolutional network, end as an adder network."""
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.registry import HOOKS

from mmadder.errors import InputError
from mmadder.layers import adder_fraction, find_adders, set_adder_fraction

ADDER_FRACTION = 'adder_fraction'  # in logs of training and validation


@HOOKS.register_module()
class AnnealingHook(Hook):
    """Lead all adders of a model from convolutions to adders.

    An adder layer computes (1 - t) conv2d(x, w) + t adder(x, w), and this
    hook moves t from 0 to 1, linearly between two points of the training::

        custom_hooks = [dict(type='AnnealingHook', start=0., end=0.6)]

    t is part of the checkpoints, so that resuming and testing use it; an
    average of weights (EMAHook) has it too. Until t is 1 the network is no
    adder network: no 'best' checkpoint is taken from it, no validation ends
    the training early, and a training that ends there says so.

    Not part of the paper: ours.

    Args:
        start, end: fractions of the training's iterations, 0 to 1.
            Where they are equal, t jumps.
        center_convolution: take the mean over the filters off the
            convolution too. A trained CNN is a starting point only without.
        scale_gradient: local gradient scaling also while t < 1.
    Raises:
        InputError: such fractions are none, the model has no adders, or the
            training ends before they are; or what asks for a metric of every
            validation, ReduceOnPlateauLR or a strict EarlyStoppingHook, would
            get none.
    """

    # After the metrics are logged (RuntimeInfoHook), before EMAHook copies
    # the model and before CheckpointHook looks for the best one.
    priority = 'ABOVE_NORMAL'

    def __init__(self, start: float, end: float,
                 center_convolution: bool = False,
                 scale_gradient: bool = True):
        if not 0 <= start <= end <= 1:
            raise InputError(
                'AnnealingHook: start and end are fractions of the training, '
                f'0 <= start <= end <= 1, got start={start}, end={end}')
        self.start, self.end = start, end
        self.center_convolution = center_convolution
        self.scale_gradient = scale_gradient
        self._trains = False

    def before_run(self, runner):
        # A fused, quantized or exported model that is tested has none.
        for layer in find_adders(runner.model).values():
            layer.center_convolution = self.center_convolution
            layer.scale_gradient = self.scale_gradient
            # A buffer for checkpoints, before the averages are made. A test
            # behind the training finds what the training has left.
            layer.set_adder_fraction(layer.adder_fraction)

    def before_train(self, runner):
        if not find_adders(runner.model):
            raise InputError(
                'AnnealingHook: the model has no AdderConv2d that could be '
                "led to; set conv_cfg=dict(type='AdderConv2d', ...) or remove "
                'the hook')
        last = self.fraction(runner.max_iters - 1, runner.max_iters)
        if last < 1:
            raise InputError(
                f'AnnealingHook: with end={self.end} no iteration of '
                f'{runner.max_iters} trains adders, t ends at {last:.3g}: '
                'choose a smaller end')
        if last > self.fraction(0, runner.max_iters):
            _require_patience(runner)
        self._trains = True
        begin, end = (int(part * runner.max_iters)
                      for part in (self.start, self.end))
        runner.logger.info(
            f'AnnealingHook: convolutions up to iteration {begin}, adders '
            f'from iteration {end} of {runner.max_iters}')
        self._set(runner, self.fraction(runner.iter, runner.max_iters))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        fraction = self.fraction(runner.iter, runner.max_iters)
        self._set(runner, fraction)
        runner.message_hub.update_scalar(f'train/{ADDER_FRACTION}', fraction)

    def before_val_epoch(self, runner):
        if self._trains:
            runner.message_hub.update_scalar(
                f'val/{ADDER_FRACTION}', adder_fraction(runner.model))

    def after_val_epoch(self, runner, metrics=None):
        fraction = adder_fraction(runner.model)
        if self._trains and metrics and fraction < 1:
            runner.logger.info(
                f'AnnealingHook: adder_fraction is {fraction:.3g}, so this '
                'validation is not of an adder network, and counts neither '
                'for the best checkpoint nor for an early stop')
            metrics.clear()  # logged already

    def after_train(self, runner):
        self._trains = False
        fraction = adder_fraction(runner.model)
        if fraction < 1:
            runner.logger.error(
                f'AnnealingHook: THE TRAINING ENDS BEFORE ITS LAYERS ARE '
                f'ADDERS, at adder_fraction {fraction:.3g}. Its checkpoints '
                'can be resumed, but not fused, quantized or converted; train '
                f'on, or with an end below {self.end}')

    def fraction(self, iteration: int, max_iters: int) -> float:
        """Return t of an iteration, counted from 0."""
        done = iteration / max_iters
        if done >= self.end:
            return 1.
        if done <= self.start:
            return 0.
        return (done - self.start) / (self.end - self.start)

    def _set(self, runner, fraction):
        set_adder_fraction(runner.model, fraction)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                set_adder_fraction(hook.ema_model, fraction)


def _require_patience(runner):
    """Raise InputError if something cannot do without early validations."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):
        schedulers = sum(schedulers.values(), [])
    if any(isinstance(scheduler, ReduceOnPlateauParamScheduler)
           and scheduler.need_val_args for scheduler in schedulers):
        raise InputError(
            'AnnealingHook: validations before t = 1 are not of an adder '
            'network, so ReduceOnPlateau would get no metric of them; use a '
            'schedule that asks for none, such as MultiStepLR')
    if any(isinstance(hook, EarlyStoppingHook) and hook.strict
           for hook in runner.hooks):
        raise InputError(
            'AnnealingHook: validations before t = 1 are not of an adder '
            'network and cannot stop the training: set strict=False for '
            'EarlyStoppingHook')
