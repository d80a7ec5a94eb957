"""Validate and save with batch norms whose statistics are measured anew."""
import contextlib
import copy
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmadder.errors import InputError
from mmadder.models import unwrap_model
from mmadder.statistics import find_norms, reestimate_statistics


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """Estimate the statistics of batch norms anew for validation and files.

    The mean and variance that batch norms track in training lag behind
    weights that move, those of adders above all. This hook measures them on
    augmented training pictures, for the weights as they are, before each
    validation, and before CheckpointHook writes: what is validated is what
    the file has. In a config::

        custom_hooks = [dict(type='PreciseBatchNormHook', num_samples=1000)]

    The training itself notices nothing: a copy of the model measures, on
    data and random numbers of its own, and the model gets its tracked
    statistics back. It has the new ones once the training has ended, or was
    resumed from a file. Of averaged weights (EMAHook) the averages are
    measured; several processes share the mean over all of them.

    MMPretrain's PreciseBNHook replaces the tracked statistics at the end of
    each epoch, takes pictures off the training's own loader, keeps all
    layers in train mode, dropout too, and knows neither the batch samplers
    of detectors nor averaged weights. Here all but the norms is in evaluation
    mode, and norms that do not learn (``norm_eval``, ``frozen_stages``) are
    left alone.

    Args:
        num_samples: pictures to measure on, at least; over all processes,
            and rounded up to whole batches. At most an epoch.
    Raises:
        InputError: no batch norm learns, or the model or its data are
            wrapped in a way that cannot be copied.
    """

    # After EMAHook has put the averages in place, before CheckpointHook.
    priority = 'LOW'

    def __init__(self, num_samples: int = 1000):
        if num_samples < 1:
            raise InputError('num_samples of PreciseBatchNormHook must be at '
                             f'least 1, got {num_samples}')
        self.num_samples = num_samples
        self._names = None  # of the norms that learn, while a training runs
        self._found = None  # buffers measured since the last step
        self._tracked = None  # buffers of the model during a validation

    def before_train(self, runner):
        if not isinstance(runner._train_dataloader, dict):
            raise InputError('PreciseBatchNormHook needs train_dataloader as '
                             'a config, not built already')
        if is_model_wrapper(runner.model) and not isinstance(
                runner.model, DistributedDataParallel):
            raise InputError(
                'PreciseBatchNormHook: a model in '
                f'{type(runner.model).__name__} cannot be copied; use '
                'MMDistributedDataParallel or remove the hook')
        if getattr(_averages(runner), 'evaluate_on_origin', False):
            raise InputError(
                'PreciseBatchNormHook measures one set of weights: give '
                'EMAHook evaluate_on_ema=True, evaluate_on_origin=False')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._found = None
        if self._names is None:  # the model is in train mode from here on
            self._names = _learning_norms(unwrap_model(runner.model))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        if any(not hook.by_epoch and (
                hook.every_n_train_iters(
                    runner, hook.interval, hook.save_begin)
                or hook.save_last and hook.is_last_train_iter(runner))
               for hook in _hooks(runner, CheckpointHook)):
            self._measure(runner)

    def after_train_epoch(self, runner):
        if any(hook.by_epoch and (
                hook.every_n_epochs(runner, hook.interval, hook.save_begin)
                or hook.save_last and hook.is_last_train_epoch(runner))
               for hook in _hooks(runner, CheckpointHook)):
            self._measure(runner)

    def before_val(self, runner):
        self._measure(runner)  # the averages are not in the model yet

    def before_val_epoch(self, runner):
        if self._found:
            model = unwrap_model(runner.model)
            self._tracked = {key: model.get_buffer(key).clone()
                             for key in self._found}
            _write(self._found, model)

    def after_val_epoch(self, runner, metrics=None):
        if self._tracked:
            _write(self._tracked, _owner_of_buffers(runner))
            self._tracked = None

    def before_save_checkpoint(self, runner, checkpoint):
        if self._found:
            checkpoint['state_dict'].update(
                {key: value.cpu() for key, value in self._found.items()})

    def after_train(self, runner):
        self._measure(runner)
        if self._found:  # a test may follow
            _write(self._found, _owner_of_buffers(runner))
        self._names = self._found = None

    def _measure(self, runner):
        """Measure once between two steps of a training, on all ranks."""
        if not self._names or self._found:
            return
        averages = _averages(runner)
        model = copy.deepcopy(unwrap_model(runner.model) if averages is None
                              else averages.ema_model.module)
        norms = [model.get_submodule(name) for name in self._names]
        with _random_numbers_aside(runner.seed):
            # A copy of the data set too, whose pipeline may have a state.
            loader = runner.build_dataloader(
                dict(runner._train_dataloader, persistent_workers=False,
                     dataset=runner.train_dataloader.dataset),
                seed=runner.seed)
            reestimate_statistics(
                model, _first(loader, self.num_samples / get_world_size()),
                norms=norms)
        self._found = {f'{name}.{key}': norm.get_buffer(key)
                       for name, norm in zip(self._names, norms)
                       for key in ('running_mean', 'running_var')}
        all_reduce_params(list(self._found.values()), op='mean')


def _learning_norms(model: nn.Module) -> list[str]:
    """Return all names of the batch norms in train mode."""
    norms = {id(norm) for norm in find_norms(model) if norm.training}
    if not norms:
        raise InputError(
            'PreciseBatchNormHook: no batch norm learns in this model, so '
            'none has statistics to measure; remove the hook')
    return [name for name, module in model.named_modules(
        remove_duplicate=False) if id(module) in norms]


def _first(batches: Iterable[dict], samples: float) -> Iterator[dict]:
    for batch in batches:
        yield batch
        samples -= len(batch['inputs'])
        if samples <= 0:
            return


@contextlib.contextmanager
def _random_numbers_aside(seed: int) -> Iterator[None]:
    """Start all generators from a seed; put them back in the end."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] \
        if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        set_random_seed(seed, diff_rank_seed=True)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@torch.no_grad()
def _write(buffers: dict[str, Tensor], model: nn.Module) -> None:
    for key, value in buffers.items():
        model.get_buffer(key).copy_(value)


def _owner_of_buffers(runner):
    """Return the model whose buffers are tested, outside of a validation."""
    averages = _averages(runner)
    return (averages.ema_model.module
            if averages is not None and averages.ema_model.update_buffers
            else unwrap_model(runner.model))


def _averages(runner):
    return next(_hooks(runner, EMAHook), None)


def _hooks(runner, kind):
    return (hook for hook in runner.hooks if isinstance(hook, kind))
