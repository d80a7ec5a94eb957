"""The tracked statistics of batch norms, and how to estimate them anew."""
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError


def find_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model that track statistics."""
    return [module for module in model.modules()
            if isinstance(module, _BatchNorm)
            and module.running_mean is not None]


@torch.no_grad()
def reestimate_statistics(model: nn.Module, batches: Iterable,
                          forward: Callable | None = None,
                          norms: Sequence[_BatchNorm] | None = None) -> None:
    """Estimate the tracked mean and variance of batch norms anew.

    Each becomes the mean over the batches, as the norms see them in training;
    every other module is in evaluation mode meanwhile. Weights and modes stay
    as they are. If a batch fails, so do the statistics, and those of norms
    that no batch reaches.

    Args:
        model: with at least one batch norm.
        batches: each counts the same; one at least.
        forward: called with a batch, runs the model on it; default: the
            loss of a model of MMEngine on a batch of its training.
        norms: some of the model's; default: all that track statistics.
    Raises:
        InputError: no batch norm tracks statistics or sees a batch, or there
            is no batch.
    """
    def loss(batch):
        model(**model.data_preprocessor(batch, True), mode='loss')

    forward = loss if forward is None else forward
    norms = find_norms(model) if norms is None else norms
    if not norms:
        raise InputError(f'{type(model).__name__} has no batch norm whose '
                         'statistics could be estimated anew')
    with _averaging(model, norms):
        seen = False
        for batch in batches:
            forward(batch)
            seen = True
        if not seen:
            raise InputError('there is no batch to estimate the statistics '
                             'of batch norms from')
        if not any(norm.num_batches_tracked for norm in norms):
            raise InputError('no batch norm has tracked a batch: inside of '
                             'robust inference none does')


@contextlib.contextmanager
def _averaging(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Let norms track the mean over their batches; undone by an error."""
    training = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.named_buffers()}
              for norm in norms]
    for module in training:
        module.training = False
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    failed = True
    try:
        yield
        failed = False
    finally:
        for norm, buffers in zip(norms, before):
            if failed or not norm.num_batches_tracked:
                for name, value in buffers.items():
                    norm.get_buffer(name).copy_(value)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
        for module, mode in training.items():
            module.training = mode
