"""Two checkpoints of one architecture, and the line between them."""
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mmadder.checkpoints.state_dict import (
    BESIDES,
    load_network,
    read_state_dict,
)
from mmadder.errors import InputError
from mmadder.layers import set_adder_fraction
from mmadder.text import shorten

StateDict = dict[str, torch.Tensor]
MAX_NAMES = 5  # in a message
IN_ONE = ('.num_batches_tracked', BESIDES)  # keys that may be


def interpolate(first: Mapping[str, torch.Tensor],
                second: Mapping[str, torch.Tensor], t: float) -> StateDict:
    """Return the state dict (1 - t) first + t second.

    Buffers, such as the tracked mean and variance of batch norms, are
    interpolated like weights. Integers, which only count, are the first's.

    Args:
        first, second: of equal keys and shapes.
        t: 0 gives the first, 1 the second.
    """
    return {key: torch.lerp(value, second[key].to(value.dtype), t)
            if value.is_floating_point() else value
            for key, value in first.items()}


def require_same_architecture(first: Mapping[str, torch.Tensor],
                              second: Mapping[str, torch.Tensor],
                              names: Sequence[str]) -> None:
    """Raise InputError unless two state dicts have equal keys and shapes.

    Args:
        first, second: state dicts.
        names: the two files.
    """
    differences = []
    for kind, own, other in (('only in the first', first, second),
                             ('only in the second', second, first)):
        keys = [key for key in own
                if key not in other and not key.endswith(IN_ONE)]
        if keys:
            differences.append(
                f'{len(keys)} keys {kind}: {shorten(keys, MAX_NAMES)}')
    shapes = [f'{key} ({tuple(value.shape)} and {tuple(second[key].shape)})'
              for key, value in first.items()
              if key in second and second[key].shape != value.shape]
    if shapes:
        differences.append(f'{len(shapes)} of different shapes: '
                           f'{shorten(shapes, MAX_NAMES)}')
    if differences:
        raise InputError(
            '{} and {} are of different architectures and have no line '
            'between them:\n  '.format(*names) + '\n  '.join(differences))


def load_pair(model: nn.Module, names: Sequence[str]) -> list[StateDict]:
    """Read two checkpoints that fit each other and the model.

    Args:
        model: has the second one's weights afterwards.
        names: the two files.
    Returns:
        two state dicts, with the model's keys only.
    Raises:
        InputError: a file is missing or does not fit.
    """
    require_same_architecture(*map(read_state_dict, names), names)
    set_adder_fraction(model, 1)  # of files that do not say
    pair = []
    for name in names:
        load_network(model, name)
        pair.append({key: value.clone()
                     for key, value in model.state_dict().items()})
    return pair
