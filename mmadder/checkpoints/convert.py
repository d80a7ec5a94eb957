"""Convert a checkpoint to another variant, and prove that nothing is lost.

Two ways between adders lose nothing: a plain weight W is adaptive weight
normalization (AWN) with nu = sigma and upsilon = mu of each filter, and any
normalized weight W' is a plain one. A convolutional network is the beginning
of the path to an adder network (:mod:`mmadder.checkpoints.from_cnn`). The
proof runs both models, each with its own layers, on pictures that they tell
apart.
"""

import copy
import logging
from collections.abc import Iterable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmadder.checkpoints.classes import num_classes
from mmadder.checkpoints.from_cnn import (
    as_cnn,
    from_cnn,
    named_as_ours,
    norms_behind,
    with_norms,
)
from mmadder.checkpoints.official import (
    from_official,
    is_official,
    official_logits,
    require_head,
)
from mmadder.checkpoints.state_dict import BESIDES, compare_state_dict
from mmadder.checkpoints.variants import CENTERED, split_variant, variant_of
from mmadder.errors import InputError
from mmadder.layers import (
    AWN,
    WS,
    AdderConv2d,
    find_adders,
    require_adders,
    set_adder_fraction,
)
from mmadder.text import shorten

TOLERANCE = 1e-5  # largest deviation, relative to the largest value
# Least difference between the outputs of two pictures, relative to the
# largest output: a hundred times the tolerance.
LEAST_VARIATION = 1e-3
SCALES = (.5, 1, 2)  # of the noise pictures
SOURCES = ('official', 'ann', 'ws', 'awn', 'ann-centered', 'ws-centered',
           'awn-centered', 'cnn')


def convert_checkpoint(
        state_dict: dict[str, Tensor],
        model: nn.Module,
        source: str | None = None,
        original: nn.Module | None = None,
        pictures: Iterable[Tensor] | None = None
) -> tuple[dict[str, Tensor], float, float]:
    """Convert to the variant of a model, and load the result into it.

    Args:
        state_dict: of AdderNet's code or of ours.
        model: of the target variant.
        source: one of ``SOURCES``; needed without ``original`` where keys
            are equal: 'ann' and 'ws', and a centered variant or not.
        original: model of the config in the checkpoint, with any weights.
            Without it the target is taken, with the weight norm of the
            source and, where the target has another, its default eps.
        pictures: batches (N, 3, H, W), float32, normalized as the model's
            preprocessor does: what norms that a CNN does not have see at
            first. Default: noise.
    Returns:
        The converted state dict, without layers of a CNN's heads that are
        for another number of classes; the largest deviation of its outputs on
        noise, and of its filters behind the weight norm, relative to the
        largest value, before it is rounded to the model's dtype; and after.
        Outputs are logits of a classifier or features of a detector, in
        float64.
    Raises:
        InputError: the source is unknown, not the original's, does not fit
            the model; or nothing is proven, because the outputs deviate by
            more than 1e-5, after rounding by more than ten times as much as
            those of the source in its own dtype, or because they hardly
            depend on the picture.
    """
    if source == 'cnn':
        return _convert_cnn(state_dict, model, pictures)
    source = _find_source(state_dict, source, original, model)
    if original is None:
        original = set_weight_norm(
            copy.deepcopy(model), 'ann' if source == 'official' else source)
    exact = {key: value.double() if value.is_floating_point() else value
             for key, value in state_dict.items()}
    ours = from_official(exact) if source == 'official' else exact
    _require_weight_norms(ours, original)
    if source == 'official':
        require_head(ours, model)
    _require_expressible(original, model)
    original = _load(copy.deepcopy(original).double(), ours)
    require_adders(original, 'convert_checkpoint')
    converted = convert_variant(original, model)
    images = _noise()
    expected = _parts(official_logits(exact, images)) \
        if source == 'official' else _parts(outputs(original, images))
    _require_variation(expected)
    expected += _filters(original)
    return _proven(converted, model, original, expected, _evidence, source)


def _convert_cnn(state_dict, model, pictures):
    """:func:`convert_checkpoint` of convolutions to layers that begin so."""
    _adders_of(model)
    anew = _for_other_classes(model, state_dict)
    exact = {key: value.double() if value.is_floating_point() else value
             for key, value in {**named_as_ours(state_dict), **anew}.items()}
    images = _noise()
    set_adder_fraction(model, 0)
    norms = norms_behind(model, lambda m: outputs(m, images))
    cnn = _load(as_cnn(model, exact, norms).double(), exact)
    expected = _parts(outputs(cnn, images))
    _require_variation(expected)
    original = with_norms(
        cnn, model, norms, _noise_in_place() if pictures is None else pictures)
    converted, *deviations = _proven(
        from_cnn(original, model, norms), model, cnn, expected,
        lambda *args: _parts(outputs(*args)), 'cnn')
    return {key: value for key, value in converted.items()
            if key not in anew}, *deviations


def _for_other_classes(model, state_dict):
    """Tensors of the model whose number of classes differs in the file."""
    anew = {key: value for key, value in model.state_dict().items()
            if key in state_dict and value.shape != state_dict[key].shape
            and value.shape[1:] == state_dict[key].shape[1:]
            and num_classes(model, key) is not None
            and not key.startswith(('head.', 'rpn_head.'))}
    if anew:
        _warn(f'{shorten(list(anew))}: of another number of classes in the '
              'checkpoint, so left out, to be trained anew')
    return anew


def _noise_in_place():
    """Yield a batch, with a warning when it is asked for."""
    _warn('norms that the config has and the checkpoint has not begin with '
          'statistics of noise, which training will change abruptly; '
          '--calibrate takes them from training pictures')
    yield _noise(256).float()


def _warn(text):
    print_log(text, logger='current', level=logging.WARNING)


def _proven(converted, model, original, expected, evidence, source):
    """Return what :func:`convert_checkpoint` does, if it is proven.

    Args:
        converted: state dict for the model, in float64.
        original: float64 model with the source's weights.
        expected: its outputs.
        evidence: function of model, images and dtype that gives such.
    """
    images = _noise()
    deviation = largest_deviation(expected, evidence(
        _load(copy.deepcopy(model).double(), converted), images))
    own = model.state_dict()
    converted = {key: value.to(own[key].dtype) if key in own else value
                 for key, value in converted.items()}
    rounding = largest_deviation(
        expected, evidence(_load(model, converted), images))
    _require_equal(deviation, TOLERANCE, source)
    if not rounding <= TOLERANCE:
        # A rounded nu or upsilon moves all taps of a filter together, so
        # that their errors add up more than those of rounded sums.
        single = evidence(original, images, torch.float32)
        _require_equal(
            rounding, 10 * largest_deviation(expected, single), source)
    return converted, deviation, rounding


def convert_variant(original: nn.Module,
                    model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with which a model computes what another does.

    Args:
        original: with the weights; its adders may have any weight norm.
        model: of the target variant, such as an ImageClassifier or a
            detector; only its layers count, not its weights.
    Returns:
        For ``model``. Each weight is exact up to its rounding to the
        original's dtype; weights that need no change are kept raw.
    Raises:
        InputError: other layers are adders, or the target cannot express the
            source (weight standardization, of another layer).
    """
    _require_expressible(original, model)
    converted = {key: value for key, value in original.state_dict().items()
                 if not key.endswith(BESIDES)}  # adders need not say so
    for name, target in model.named_modules(remove_duplicate=False):
        if not isinstance(target, AdderConv2d):
            continue
        source = original.get_submodule(name)
        if _norm_of(source) == _norm_of(target):
            continue
        for key in [key for key in converted if key.startswith(f'{name}.awn')]:
            del converted[key]
        converted.update({f'{name}.{key}': value for key, value
                          in _convert_layer(source, target).items()})
    return converted


def _convert_layer(source, target):
    """Return the tensors of a layer that change with its weight norm."""
    dtype = source.weight.dtype
    source = copy.deepcopy(source).double().requires_grad_(False)
    if target.awn is None:
        return dict(weight=source.normalized_weight.to(dtype))
    variance, mean = torch.var_mean(source.weight.flatten(1), 1, correction=0)
    # Each filter is scale * (W - mean) + shift.
    scale, shift = torch.ones_like(mean), mean
    if source.ws is not None:
        scale = (variance + source.ws.eps).rsqrt()
        shift = torch.zeros_like(mean)
    if source.awn is not None:
        scale = source.awn.nu * (variance + source.awn.eps).rsqrt()
        shift = source.awn.upsilon
    nu = scale * (variance + target.awn.eps).sqrt()
    return {'awn.nu': nu.to(dtype), 'awn.upsilon': shift.to(dtype)}


def _adders_of(model):
    adders = find_adders(model)
    if not adders:
        raise InputError(f'{type(model).__name__} has no adder layers, so '
                         'there are no variants of it to convert between')
    return adders


def set_weight_norm(model: nn.Module, variant: str) -> nn.Module:
    """Give every adder of a model a weight norm, in place.

    Args:
        model: its adders of another variant get a norm with the default eps,
            and scale 1 and shift 0 for 'awn'.
        variant: of :func:`variant_of`; whether it is centered counts too.
    Returns:
        The same model.
    """
    norm, centered = split_variant(variant)
    for layer in _adders_of(model).values():
        if split_variant(variant_of(layer))[0] != norm:
            channels = layer.out_channels
            layer.awn = AWN(channels) if norm == 'awn' else None
            layer.ws = WS(channels) if norm == 'ws' else None
        layer.center = centered
    return model


def _norm_of(layer):
    """Return variant and eps, which decide what the weights mean."""
    return variant_of(layer), getattr(layer.awn or layer.ws, 'eps', None)


def _find_source(state_dict, source, original, model):
    if original is not None:
        if not find_adders(original):
            raise InputError(
                'the checkpoint was trained with convolutions, so no adder '
                'network computes the same: --source cnn makes it the '
                'beginning of a path to one')
        recorded = sorted({variant_of(layer)
                           for layer in _adders_of(original).values()})
        if source and recorded != [source]:
            raise InputError(f'--source {source}, but the config in the '
                             f'checkpoint says {" and ".join(recorded)}')
        return ' and '.join(recorded)
    if source:
        return source
    if is_official(state_dict):
        return 'official'
    centered = any(layer.center for layer in _adders_of(model).values())
    if any('.awn.' in key for key in state_dict):
        if not centered:
            return 'awn'
        raise InputError(
            'the keys of centered and of other adders are equal: say with '
            f'--source whether the checkpoint is awn or awn{CENTERED}')
    raise InputError(
        'the keys of plain adders (ann) and of weight standardization (ws) '
        'are equal: say with --source which of them the checkpoint is'
        + f' (ann{CENTERED} or ws{CENTERED}, if it is)' * centered)


def _require_weight_norms(state_dict, original):
    for name, layer in _adders_of(original).items():
        if f'{name}.weight' not in state_dict:
            raise InputError(f'the checkpoint has no {name}.weight: it is not '
                             'of this architecture')
        has_awn = f'{name}.awn.nu' in state_dict
        if has_awn != (layer.awn is not None):
            raise InputError(
                f'{name} of the checkpoint has {"" if has_awn else "no "}'
                f'adaptive weight normalization, so it is '
                f'{"awn" if has_awn else "ann or ws"}, not '
                f'{variant_of(layer)}')


def _require_expressible(original, model):
    sources, targets = _adders_of(original), _adders_of(model)
    differing = sources.keys() ^ targets.keys()
    if differing:
        raise InputError(
            f'{shorten(sorted(differing))}: adders in one of checkpoint and '
            'config, convolutions in the other, so no conversion computes '
            'the same')
    for name, target in targets.items():
        if sources[name].center != target.center:
            centered, other = ('checkpoint', 'config')[::(
                1 if sources[name].center else -1)]
            raise InputError(
                f'{name} is centered in the {centered}, not in the {other}: '
                'no conversion computes the same')
        norm, eps = _norm_of(sources[name])
        if target.ws is not None and (norm, eps) != _norm_of(target):
            raise InputError(
                f'weight standardization has no scale and shift, so {name} '
                f'cannot hold the weights of an {norm} layer'
                f'{f" with eps {eps:g}" if eps and norm != "awn" else ""}; '
                'convert to ann or awn')


def _load(model, state_dict):
    difference = compare_state_dict(model, state_dict)
    if difference:
        raise InputError(f'the checkpoint does not fit '
                         f'{type(model).__name__}:\n  {difference}')
    model.load_state_dict(state_dict, strict=False)
    return model


def _noise(size=64):
    scales = torch.tensor(SCALES, dtype=torch.float64).view(-1, 1, 1, 1)
    return scales * torch.randn(
        len(SCALES), 3, size, size, dtype=torch.float64,
        generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs(model: nn.Module,
            images: Tensor,
            dtype: torch.dtype = torch.float64) -> Tensor | tuple[Tensor, ...]:
    """Logits of a classifier or features of a detector.

    Args:
        model: of MMPretrain or MMDetection; a copy is used.
        images: (N, 3, H, W), normalized.
        dtype: to compute in.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    if hasattr(model, 'head'):
        return model(images.to(dtype), mode='tensor')
    return model.extract_feat(images.to(dtype))


@torch.no_grad()
def _filters(model, dtype=torch.float64):
    """What inputs are compared with, also in layers that no output needs."""
    model = copy.deepcopy(model).to(dtype)
    return [layer.normalized_weight for layer in _adders_of(model).values()]


def _parts(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _evidence(model, images, dtype=torch.float64):
    return _parts(outputs(model, images, dtype)) + _filters(model, dtype)


def largest_deviation(expected: Tensor | list | tuple,
                      actual: Tensor | list | tuple) -> float:
    """Largest difference, relative to the largest expected value.

    Args:
        expected, actual: of equal shapes; of lists, the largest deviation of
            their parts.
    Returns:
        NaN if a value is.
    """
    if isinstance(expected, (list, tuple)):
        parts = map(largest_deviation, expected, actual)
        return torch.tensor(list(parts)).max().item()
    difference = (expected - actual).abs().max()
    if difference == 0:
        return 0.
    return (difference / expected.abs().max()).item()


def _require_equal(deviation, tolerance, source):
    if not deviation <= tolerance:
        raise InputError(
            f'the outputs of the converted checkpoint deviate by '
            f'{deviation:.2g} from those of the {source} source, more than '
            f'{tolerance:.2g}: is it of another variant or architecture?')


def _require_variation(parts):
    for part in parts:
        variation = largest_deviation(part, part[:1].expand_as(part))
        if not variation >= LEAST_VARIATION:
            raise InputError(
                'the outputs of the checkpoint hardly depend on the picture '
                f'(they vary by {variation:.2g} of the largest, at least '
                f'{LEAST_VARIATION:g} is needed), so equal outputs would '
                'prove nothing: train it first, so that its weights are not '
                'zero and its batch norms know the statistics of features')
