"""Checkpoints load whole, or training and testing do not start.

OpenMMLab's loader skips every key that is missing, unexpected or of another
shape, and goes on. A backbone without its pretrained weights, or a test of
half a model, then only shows in poor results.
"""

import collections
import pickle
import re
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.layers import warn_before_adders
from mmadder.layers.adder_conv2d import FRACTION
from mmadder.text import shorten

from .classes import class_counts
from .safe_loading import DAMAGE
from .variants import recorded_variants, require_variant

MAX_KEYS = 20  # listed of each kind in an error
WRAPPERS = ('state_dict', 'model')
# A file of PyTorch before 0.4.1 lacks it; torch starts it at zero.
OPTIONAL = '.num_batches_tracked'
# Of an adder, in training with AnnealingHook: a file without it is an adder's,
# and a layer without it takes it from the file.
BESIDES = f'.{FRACTION}'
# Means and stds of old preprocessors and EMA copies of MMDetection 2: present
# in a file, they are no weights of the model.
NOT_WEIGHTS = ('data_preprocessor.', 'ema_')


class Difference(collections.namedtuple(
        'Difference', 'missing unexpected misshapen')):
    """Keys in which a state dict differs from a model.

    Attributes:
        missing (list[str]): the model has them, the state dict does not.
        unexpected (list[str]): the state dict has them, the model does not.
        misshapen (list[str]): 'key (shape in file, shape in model)'.
    """

    def __bool__(self):
        return any(self)

    def __str__(self):
        kinds = dict(zip(('missing from the file', 'not in the model',
                          'of another shape'), self))
        lines = [f'{len(keys)} keys {kind}: {shorten(keys, MAX_KEYS)}'
                 for kind, keys in kinds.items() if keys]
        return '\n  '.join(lines)


def compare_state_dict(model: nn.Module,
                       state_dict: dict[str, Tensor],
                       ignore: tuple[str, ...] = ()) -> Difference:
    """Compare keys and shapes of a state dict with those of a model.

    Args:
        model: its ``state_dict()`` says what is expected.
        state_dict: of a file.
        ignore: beginnings of keys that may be unexpected.
    Returns:
        False if everything fits.
    """
    own = model.state_dict()
    ignore = (*ignore, *NOT_WEIGHTS)
    return Difference(
        [key for key in own
         if key not in state_dict and not key.endswith((OPTIONAL, BESIDES))],
        [key for key in state_dict if key not in own
         and not key.startswith(ignore) and not key.endswith(BESIDES)],
        [_misshapen(model, key, state_dict[key], value)
         for key, value in own.items()
         if key in state_dict and state_dict[key].shape != value.shape])


def get_state_dict(checkpoint: Any, name: str) -> dict[str, Tensor]:
    """Find the tensors in a loaded checkpoint.

    Args:
        checkpoint: a state dict, or a dict with one under
            'state_dict' or 'model'; a leading 'module.' of its keys, as
            DistributedDataParallel writes it, is taken off.
        name: the file, for the error.
    Raises:
        InputError: no tensors there.
    """
    found = checkpoint if isinstance(checkpoint, dict) else {}
    for wrapper in WRAPPERS:
        if isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    state_dict = {re.sub(r'^module\.', '', key): value
                  for key, value in found.items()
                  if isinstance(value, torch.Tensor)}
    if not state_dict:
        content = type(checkpoint).__name__
        if isinstance(checkpoint, dict):
            content += f' with {shorten(checkpoint, MAX_KEYS)}'
        raise InputError(
            f'checkpoint {name} holds no state dict, expected a dict of '
            "tensors, or one under 'state_dict' or 'model'; it is a "
            f'{content}')
    return state_dict


def read_state_dict(checkpoint: str,
                    map_location: str = 'cpu') -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file; see :func:`get_state_dict`.

    Raises:
        InputError: the file is missing, no checkpoint, or has no tensors.
    """
    return get_state_dict(
        read_checkpoint(checkpoint, map_location), name=checkpoint)


def load_pretrained(model: nn.Module,
                    checkpoint: str,
                    prefix: str | None = None,
                    map_location: str = 'cpu',
                    ignore: tuple[str, ...] = ()) -> None:
    """Load pretrained weights, all of them or none.

    Args:
        model: a backbone, for example.
        checkpoint: a file, or what else MMEngine loads, such as a URL.
        prefix: load the keys that begin with it, without it;
            'backbone.' for the backbone in an MMPretrain checkpoint.
        map_location: device to load to.
        ignore: beginnings of keys that the file may have.
    Raises:
        InputError: the file is missing or no checkpoint, it was trained
            with other layers, or its keys or shapes are not the model's; the
            model is then unchanged, and the message lists the keys.
    """
    content = read_checkpoint(checkpoint, map_location)
    state_dict = get_state_dict(content, name=checkpoint)
    recorded = recorded_variants(content)
    if prefix is not None:
        prefix = prefix.rstrip('.')
        state_dict = _below_prefix(state_dict, prefix, checkpoint)
        recorded = _without(prefix, recorded)
    require_variant(model, state_dict, recorded, checkpoint)
    difference = compare_state_dict(model, state_dict, ignore)
    if difference:
        raise InputError(
            f'pretrained checkpoint {checkpoint} does not fit '
            f'{type(model).__name__}:\n  {difference}'
            f'{_prefix_advice(prefix, difference)}')
    model.load_state_dict(state_dict, strict=False)


def load_network(model: nn.Module, checkpoint: str) -> None:
    """Load a whole network in order to run it; see :func:`load_pretrained`.

    Layers that are not adders yet run as what they are, which is said.
    """
    load_pretrained(model, checkpoint)
    warn_before_adders(model)


def split_pretrained(
        init_cfg: dict | list[dict] | None) -> tuple[list[dict], dict | None]:
    """Split an ``init_cfg`` into initializers and pretrained checkpoint.

    Returns:
        The initializers, and the arguments of the
        last ``Pretrained`` entry, without its type.
    """
    cfgs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or ())
    initializers, pretrained = [], None
    for cfg in cfgs:
        if type_name(cfg) in ('Pretrained', 'PretrainedInit'):
            pretrained = {key: cfg[key] for key in cfg if key != 'type'}
        else:
            initializers.append(cfg)
    return initializers, pretrained


def _misshapen(model, key, found, expected):
    shapes = (f'{tuple(found.shape)} in the file, {tuple(expected.shape)} in '
              'the model')
    counts = class_counts(model, key, found, expected)
    if counts:
        shapes += f', for {counts[0]} and {counts[1]} classes'
    return f'{key} ({shapes})'


def read_checkpoint(checkpoint: str, map_location: str = 'cpu') -> Any:
    """Read a checkpoint file, or what else MMEngine loads, such as a URL.

    Raises:
        InputError: the file is missing or no checkpoint.
    """
    try:
        return CheckpointLoader.load_checkpoint(
            checkpoint, map_location=map_location)
    except FileNotFoundError as error:
        raise InputError(f'checkpoint {checkpoint} does not exist') from error
    except InputError:
        raise
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise InputError(f'{checkpoint} cannot be read as a PyTorch '
                         f'checkpoint: {type(error).__name__} {error}'
                         .rstrip()) from error


def _below_prefix(state_dict, prefix, name):
    below = _without(prefix, state_dict)
    if not below:
        first_parts = dict.fromkeys(key.split('.')[0] for key in state_dict)
        raise InputError(
            f"checkpoint {name} has no key that begins with '{prefix}.'; its "
            f'keys begin with {shorten(first_parts, MAX_KEYS)}. If it holds '
            'the backbone alone, leave prefix out')
    return below


def _without(prefix, named):
    """Return the entries of a module by their names within it."""
    return {key[len(prefix) + 1:]: value for key, value in named.items()
            if f'{key}.'.startswith(f'{prefix}.')}


def _prefix_advice(prefix, difference):
    nested = any(key.startswith('backbone.') for key in difference.unexpected)
    if prefix is None and nested:
        return "\nThe file holds a whole model: set prefix='backbone.'"
    return ''


