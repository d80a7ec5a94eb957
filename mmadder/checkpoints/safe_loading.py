"""Checkpoints are read as data: nothing in the file runs.

A pickle can call any function of Python while it is read. PyTorch reads
checkpoints with an allow-list instead, and MMEngine adds ``getattr`` to it,
with which every function is in reach, or reads without a list. Our command
lines read all files inside :func:`data_only`, whose list is just what
MMEngine writes: tensors, numbers, NumPy arrays and its own log buffers.
"""

import contextlib
import functools
import pickle
import re
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
)

from mmadder.errors import InputError

STATISTICS = ('min', 'max', 'mean', 'current')
ARRAY_MODULES = ('numpy.core.multiarray', 'numpy._core.multiarray')
ARRAY_TYPES = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16',
               'uint32', 'uint64', 'float16', 'float32', 'float64')
# What PyTorch raises for files that are cut off, empty or something else.
DAMAGE = (RuntimeError, EOFError, LookupError, ValueError, AttributeError,
          TypeError)
_trusting = False


@contextlib.contextmanager
def data_only() -> Iterator[None]:
    """Let ``torch.load`` read data only, whoever calls it.

    Also what MMEngine and others ask for with ``weights_only=False``. Inside,
    a file that needs more raises InputError, unless :func:`trust` lifted it.
    """
    global _trusting
    unpatched, trusted_before = torch.load, _trusting
    torch.load = functools.wraps(unpatched)(
        functools.partial(_load, unpatched))
    try:
        yield
    finally:
        torch.load, _trusting = unpatched, trusted_before


def trust() -> None:
    """Until the surrounding :func:`data_only` ends, let files run code."""
    global _trusting
    _trusting = True


def _load(unpatched, file, *args, **kwargs):
    if _trusting:
        return unpatched(file, *args, **{**kwargs, 'weights_only': False})
    name = getattr(file, 'name', file) if hasattr(file, 'read') else file
    try:
        with _only_allowed():
            checkpoint = unpatched(
                file, *args, **{**kwargs, 'weights_only': True})
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(name, str(error))) from error
    except DAMAGE as error:
        reason = str(error).strip().partition('\n')[0]
        raise InputError(
            f'checkpoint {name} cannot be read, it is damaged or no '
            f'checkpoint: {type(error).__name__} {reason}'.rstrip()
        ) from error
    return _without_program(checkpoint)


def _refusal(name, reason):
    found = re.search(r'GLOBAL (\S+)', reason)
    if found:
        return (f'checkpoint {name} is more than data: to read it would call '
                f'{found[1]}, and with that it could run anything; pass '
                '--trust-checkpoint if you trust whoever made it')
    reason = reason.partition('WeightsUnpickler error: ')[2] or reason
    return (f'checkpoint {name} cannot be read as data '
            f'({reason.strip().splitlines()[0]}): it is damaged or no '
            'checkpoint, or it is more than data; in the last case pass '
            '--trust-checkpoint if you trust whoever made it')


def _without_program(checkpoint):
    """Take out the text that MMEngine executes when it resumes.

    Files from before MMEngine have their config there: it moves to where
    MMEngine writes it, and nothing executes it.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict) and 'config' in meta:
        meta.setdefault('cfg', meta.pop('config'))
    return checkpoint


@contextlib.contextmanager
def _only_allowed():
    """Replace builtins on PyTorch's list by what MMEngine needs of them."""
    before = get_safe_globals()
    clear_safe_globals()
    add_safe_globals([entry for entry in before if not _is_builtin(entry)])
    add_safe_globals(_allowed())
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


def _is_builtin(entry):
    name = entry[1] if isinstance(entry, tuple) else entry.__module__
    return name.split('.')[0] == 'builtins'


@functools.lru_cache(maxsize=1)
def _allowed():
    numpy_core = getattr(np, '_core', None) or np.core
    functions = [
        _named(f'{module}.{name}', getattr(numpy_core.multiarray, name))
        for module in ARRAY_MODULES for name in ('_reconstruct', 'scalar')]
    types = {type(np.dtype(name)) for name in ARRAY_TYPES}
    return [HistoryBuffer, np.ndarray, np.dtype, *types, *functions,
            _named('builtins.getattr', _get_statistic)]


def _named(path, function):
    """Return a function that the list has under another name."""

    def renamed(*args):
        return function(*args)

    renamed.__module__, _, renamed.__name__ = path.rpartition('.')
    renamed.__qualname__ = renamed.__name__
    return renamed


def _get_statistic(owner, name):
    """The one use of getattr: methods that a HistoryBuffer refers to."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError('unsupported GLOBAL builtins.getattr')
    return getattr(owner, name)
