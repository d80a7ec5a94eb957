"""Move weights between adders with and without weight normalization.

Two ways lose nothing: a plain weight W is adaptive weight normalization
(AWN) with nu = sigma and upsilon = mu of each filter, and any normalized
weight W' is a plain one.
"""

import torch

from mmadder.checkpoints.variants import variant_of
from mmadder.errors import InputError
from mmadder.layers import AWN, WS, AdderConv2d
from mmadder.layers.weight_norm import (
    adaptive_weight_norm,
    weight_standardization,
)


def find_adders(model):
    """Return {name: layer} of the AdderConv2d in a model.

    Raises:
        InputError: there is none.
    """
    adders = {name: layer for name, layer in model.named_modules()
              if isinstance(layer, AdderConv2d)}
    if not adders:
        raise InputError(f'{type(model).__name__} has no adder layers, so '
                         'there are no variants of it to convert between')
    return adders


def convert_variant(state_dict, source, model):
    """Return the state dict that computes the same in another variant.

    Args:
        state_dict (dict[str, Tensor]): of the source variant.
        source (str): 'ann', 'ws' or 'awn'. The keys of the first two are
            equal, as are those of the convolutional twin.
        model (nn.Module): of the target variant, such as an ImageClassifier
            or a detector; only its layers count, not its weights.
    Returns:
        dict[str, Tensor]: for ``model``. Each weight is exact up to its
        rounding to float32. Weights that need no change are kept raw.
    Raises:
        InputError: the keys are of another variant, or the target cannot
            express the source ('ws' as a target of another variant).
    """
    converted = dict(state_dict)
    for name, layer in find_adders(model).items():
        _require_variant(state_dict, name, source)
        target = variant_of(layer)
        if source == target:
            continue
        if target == 'ws':
            raise InputError(
                f'weight standardization has no scale and shift, so {name} '
                f'cannot hold the weights of an {source} layer; convert to '
                'ann or awn')
        layer_state = {
            key: converted.pop(f'{name}.{key}')
            for key in ('weight', 'awn.nu', 'awn.upsilon')
            if f'{name}.{key}' in converted}
        layer_state = _to_awn(source, layer_state, layer.awn.eps) \
            if target == 'awn' else dict(weight=_normalized(
                source, layer_state).to(layer_state['weight'].dtype))
        converted.update({f'{name}.{key}': value
                          for key, value in layer_state.items()})
    return converted


def _require_variant(state_dict, name, source):
    if f'{name}.weight' not in state_dict:
        raise InputError(f'the checkpoint has no {name}.weight: it is not of '
                         'this architecture')
    has_awn = f'{name}.awn.nu' in state_dict
    if has_awn != (source == 'awn'):
        raise InputError(
            f'{name} of the checkpoint has {"" if has_awn else "no "}'
            f'adaptive weight normalization, so it is '
            f'{"awn" if has_awn else "ann or ws"}, not {source}')


def _normalized(source, state):
    """W' of a layer, in float64."""
    values = {key: value.double() for key, value in state.items()}
    if source == 'awn':
        return adaptive_weight_norm(
            values['weight'], values['awn.nu'], values['awn.upsilon'])
    if source == 'ws':
        return weight_standardization(values['weight'])
    return values['weight']


def _to_awn(source, state, eps):
    weight = state['weight']
    filters = weight.double().flatten(1)
    if source == 'ws':
        nu, upsilon = torch.ones(len(filters)), torch.zeros(len(filters))
    else:
        variance, mean = torch.var_mean(filters, dim=1, correction=0)
        nu, upsilon = (variance + eps).sqrt(), mean
    return {'weight': weight, 'awn.nu': nu.to(weight.dtype),
            'awn.upsilon': upsilon.to(weight.dtype)}


def set_weight_norm(model, variant):
    """Give every adder of a model another weight norm, in place.

    Args:
        model (nn.Module)
        variant (str): 'ann', 'ws' or 'awn'; scale and shift of 'awn' are
            1 and 0.
    Returns:
        nn.Module: the same.
    """
    for layer in find_adders(model).values():
        channels = layer.out_channels
        layer.awn = AWN(channels) if variant == 'awn' else None
        layer.ws = WS(channels) if variant == 'ws' else None
    return model
