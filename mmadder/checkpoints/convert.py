"""Convert a state dict between weight norms, and prove that it agrees.

Two ways lose nothing: a plain weight W is adaptive weight normalization
(AWN) with nu = sigma and upsilon = mu of each filter, and any normalized
weight W' is a plain one.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from mmadder.errors import InputError
from mmadder.layers import AWN, WS, AdderConv2d

from .official import from_official, is_official, official_logits
from .state_dict import compare_state_dict
from .variants import EPS, part_of, variant_of

TOLERANCE = 1e-5  # largest deviation, relative to how far outputs vary
SOURCES = ('official', 'ann', 'ws', 'awn')
# Outputs that vary by less than this share of their size prove nothing.
LEAST_SPREAD = 1e-6

State = Mapping[str, torch.Tensor]


def convert_checkpoint(
        state_dict: State,
        model: nn.Module,
        source: str | None = None,
        recorded: Mapping[str, str] | None = None,
        eps: Mapping[str, float] | None = None,
) -> tuple[dict[str, torch.Tensor], float, float]:
    """Convert to the variant of a model, and load the result into it.

    The proof runs two models that are built, the source's with its own weight
    norms and the target, on pictures of noise at several contrasts.

    Args:
        state_dict: of AdderNet's code or of ours.
        model: of the target variant.
        source: one of ``SOURCES``; needed for 'ann' and 'ws', whose keys are
            equal, unless ``recorded`` tells.
        recorded: variants of the parts, from
            :func:`mmadder.checkpoints.variants.recorded_variants`.
        eps: of the source's weight norms by part, from
            :func:`mmadder.checkpoints.variants.recorded_eps`; 1e-5 elsewhere.
    Returns:
        The converted state dict; the largest deviation of its outputs,
        relative to how far outputs vary from picture to picture, before it is
        rounded to the model's dtype; and after. Outputs are logits of a
        classifier or features of a detector, in float64.
    Raises:
        InputError: the source is unknown, not what is recorded, does not fit
            the model; the outputs do not vary with the picture, so that
            nothing is proved; or they deviate by more than 1e-5, after
            rounding by more than those of the source in its own dtype.
    """
    source = _find_source(state_dict, source, set((recorded or {}).values()))
    exact = {key: value.double() if value.is_floating_point() else value
             for key, value in state_dict.items()}
    ours, variant = (from_official(exact), 'ann') \
        if source == 'official' else (exact, source)
    converted = convert_variant(ours, variant, model, eps)
    images = _noise()
    original = _load(set_weight_norm(
        copy.deepcopy(model), variant, eps).double(), ours)
    expected = official_logits(exact, images) \
        if source == 'official' else outputs(original, images)
    scale = _spread(expected)
    deviation = _largest_difference(expected, outputs(
        _load(copy.deepcopy(model).double(), converted), images)) / scale
    like = {**state_dict, **model.state_dict()}
    converted = {key: value.to(like[key].dtype)
                 for key, value in converted.items()}
    rounding = _largest_difference(
        expected, outputs(_load(model, converted), images)) / scale
    _require_equal(deviation, TOLERANCE, source)
    if not rounding <= TOLERANCE:
        single = outputs(original, images, torch.float32)
        _require_equal(rounding, _largest_difference(expected, single) / scale,
                       source)
    return converted, deviation, rounding


def convert_variant(
        state_dict: State,
        source: str,
        model: nn.Module,
        eps: Mapping[str, float] | None = None) -> dict[str, torch.Tensor]:
    """Return the state dict that computes the same in another variant.

    Args:
        state_dict: of the source variant.
        source: 'ann', 'ws' or 'awn'. The keys of the first two are equal, as
            are those of the convolutional twin.
        model: of the target variant, such as an ImageClassifier or a
            detector; only its layers count, not its weights.
        eps: of the source's weight norms by part, 1e-5 elsewhere.
    Returns:
        For ``model``. Each weight is exact up to its rounding to float32.
        Weights that need no change are kept raw.
    Raises:
        InputError: the keys are of another variant, or the target cannot
            express the source ('ws' as a target of anything else).
    """
    converted = dict(state_dict)
    for name, layer in find_adders(model).items():
        _require_variant(state_dict, name, source)
        target, source_eps = variant_of(layer), _eps_of(name, eps)
        if target == 'ws' and (source != 'ws' or layer.ws.eps != source_eps):
            raise InputError(
                f'weight standardization has no scale and shift, so {name} '
                f'(eps {layer.ws.eps:g}) cannot hold the weights of an '
                f'{source} layer (eps {source_eps:g}); convert to ann or awn')
        if source == target and (
                target != 'awn' or layer.awn.eps == source_eps):
            continue
        state = {key: converted.pop(f'{name}.{key}')
                 for key in ('weight', 'awn.nu', 'awn.upsilon')
                 if f'{name}.{key}' in converted}
        state = _to_awn(source, state, source_eps, layer.awn.eps) \
            if target == 'awn' else _to_plain(source, state, source_eps)
        converted.update({f'{name}.{key}': value
                          for key, value in state.items()})
    return converted


def set_weight_norm(model: nn.Module,
                    variant: str,
                    eps: Mapping[str, float] | None = None) -> nn.Module:
    """Give every adder of a model another weight norm, in place.

    Args:
        model
        variant: 'ann', 'ws' or 'awn'; scale and shift of 'awn' are 1 and 0.
        eps: of the weight norms by part, 1e-5 elsewhere.
    Returns:
        The same model.
    """
    for name, layer in find_adders(model).items():
        channels, own = layer.out_channels, _eps_of(name, eps)
        layer.awn = AWN(channels, eps=own) if variant == 'awn' else None
        layer.ws = WS(channels, eps=own) if variant == 'ws' else None
    return model


def find_adders(model: nn.Module) -> dict[str, AdderConv2d]:
    """Return the adders of a model by name.

    Raises:
        InputError: there is none.
    """
    adders = {name: layer for name, layer in model.named_modules()
              if isinstance(layer, AdderConv2d)}
    if not adders:
        raise InputError(f'{type(model).__name__} has no adder layers, so '
                         'there are no variants of it to convert between')
    return adders


@torch.no_grad()
def outputs(model: nn.Module,
            images: torch.Tensor,
            dtype: torch.dtype = torch.float64):
    """Logits of a classifier or features of a detector.

    Args:
        model: of MMPretrain or MMDetection; a copy is used.
        images: (N, 3, H, W), normalized.
        dtype: to compute in.
    Returns:
        A tensor, or a tuple of tensors.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    if hasattr(model, 'head'):
        return model(images.to(dtype), mode='tensor')
    return model.extract_feat(images.to(dtype))


def largest_deviation(expected, actual) -> float:
    """Largest difference, relative to the largest expected value.

    Args:
        expected, actual (Tensor | list | tuple): of equal shapes; of lists,
            the largest deviation of their parts.
    Returns:
        NaN if a value is.
    """
    return max((_largest_difference(a, b) / a.abs().max().item()
                for a, b in zip(_parts(expected), _parts(actual))),
               key=_nan_first)


# ------------------------------------------------------------------ weights --


def _to_awn(source, state, source_eps, target_eps):
    """Raw weight and what its norm must then do, in float64."""
    weight = state['weight']
    filters = weight.double().flatten(1)
    variance, mean = torch.var_mean(filters, dim=1, correction=0)
    nu, upsilon = (variance + target_eps).sqrt(), mean
    if source != 'ann':
        nu = nu / (variance + source_eps).sqrt()
        upsilon = torch.zeros_like(mean)
    if source == 'awn':
        nu, upsilon = nu * state['awn.nu'].double(), \
            state['awn.upsilon'].double()
    return {'weight': weight, 'awn.nu': nu.to(weight.dtype),
            'awn.upsilon': upsilon.to(weight.dtype)}


def _to_plain(source, state, eps):
    """W', by the formulas of Eq. 10 and 11."""
    weight = state['weight']
    filters = weight.double().flatten(1)
    variance, mean = torch.var_mean(filters, 1, correction=0, keepdim=True)
    normalized = (filters - mean) / (variance + eps).sqrt()
    if source == 'awn':
        normalized = (normalized * state['awn.nu'].double()[:, None]
                      + state['awn.upsilon'].double()[:, None])
    return dict(weight=normalized.view_as(weight).to(weight.dtype))


def _eps_of(name, eps):
    return (eps or {}).get(part_of(name, eps or ()), EPS)


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


# -------------------------------------------------------------------- proof --


def _noise():
    """Pictures that differ in pattern, contrast and brightness."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64,
                         generator=generator)
    contrast, brightness = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)
        for values in ((1, 1, .3, 2), (0, 0, 1, -1)))
    return images * contrast + brightness


def _spread(expected):
    """How far outputs vary from picture to picture."""
    spreads = [((part - part.mean(0)).abs().max()
                / part.abs().max().clamp_min(1e-300)).item()
               for part in _parts(expected)]
    if not max(spreads) >= LEAST_SPREAD:
        raise InputError(
            'the outputs of the source do not vary with the picture, so '
            'nothing can be proved, and nothing was converted: is it trained, '
            'and is the config the one of its architecture?')
    return max((part - part.mean(0)).abs().max().item()
               for part in _parts(expected))


def _largest_difference(expected, actual):
    return max(((a - b).abs().max().item() for a, b in
                zip(_parts(expected), _parts(actual))), key=_nan_first)


def _parts(found):
    return found if isinstance(found, (list, tuple)) else [found]


def _nan_first(value):
    return float('inf') if value != value else value


def _require_equal(deviation, tolerance, source):
    if not deviation <= tolerance:
        raise InputError(
            f'the outputs of the converted checkpoint deviate by '
            f'{deviation:.2g} from those of the {source} source, more than '
            f'{tolerance:.2g}: is it of another variant or architecture?')


def _find_source(state_dict, source, recorded):
    if recorded == {'cnn'}:
        raise InputError('the checkpoint was trained with convolutions: no '
                         'conversion to adders computes the same')
    recorded = recorded - {'cnn'}  # a head, or the neck of an ablation
    if source and recorded and recorded != {source}:
        raise InputError(f'--source {source}, but the config in the '
                         f'checkpoint says {" and ".join(sorted(recorded))}')
    if source:
        return source
    if is_official(state_dict):
        return 'official'
    if any('.awn.' in key for key in state_dict):
        return 'awn'
    if len(recorded) == 1:
        return recorded.pop()
    raise InputError(
        'the keys of plain adders (ann) and of weight standardization (ws) '
        'are equal: say with --source which of them the checkpoint is')


def _load(model, state_dict):
    difference = compare_state_dict(model, state_dict)
    if difference:
        raise InputError(f'the checkpoint does not fit '
                         f'{type(model).__name__}:\n  {difference}')
    model.load_state_dict(state_dict, strict=False)
    return model
