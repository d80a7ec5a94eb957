"""Models on the path from convolutions to adders."""
import logging

from mmengine.logging import print_log
from torch import nn

from mmadder.errors import InputError

from .adder_conv2d import AdderConv2d


def find_adders(model: nn.Module) -> dict[str, AdderConv2d]:
    """Return {name: layer} of the AdderConv2d in a model, each once."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, AdderConv2d)}


def adder_fraction(model: nn.Module) -> float:
    """Return the smallest t of a model's adders; 1 if it has none."""
    return min((layer.adder_fraction
                for layer in find_adders(model).values()), default=1.)


def set_adder_fraction(model: nn.Module, fraction: float) -> None:
    """Set t of all adders of a model.

    Args:
        fraction: 0 for convolutions, 1 for adders.
    """
    for layer in find_adders(model).values():
        layer.set_adder_fraction(fraction)


def require_adders(model: nn.Module, action: str) -> None:
    """Refuse a model that has not arrived at adders.

    Args:
        action: what is not possible, such as 'quantize'.
    Raises:
        InputError: an adder_fraction below 1.
    """
    fraction = adder_fraction(model)
    if fraction < 1:
        raise InputError(
            f'{action}: the layers of this model are not adders yet '
            f'(adder_fraction {fraction:.3g}; 0 is a convolution, 1 an '
            'adder): finish its training with AnnealingHook first')


def warn_before_adders(model: nn.Module) -> None:
    """Say that what is looked at has not arrived at adders, if so."""
    fraction = adder_fraction(model)
    if fraction < 1:
        print_log(f'adder_fraction {fraction:.3g}: not an adder network yet',
                  logger='current', level=logging.WARNING)
