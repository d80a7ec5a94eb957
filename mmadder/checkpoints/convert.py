"""Convert a state dict and prove that it computes the same."""

import copy

import torch

from mmadder.checkpoints.state_dict import compare_state_dict
from mmadder.errors import InputError

from .official import from_official, is_official, official_logits
from .weight_norms import convert_variant, set_weight_norm

TOLERANCE = 1e-5  # largest deviation of the logits, relative to the largest
SOURCES = ('official', 'ann', 'ws', 'awn')


def convert_checkpoint(state_dict, model, source=None, recorded=None):
    """Convert to the variant of a model, and load the result into it.

    Args:
        state_dict (dict[str, Tensor]): of AdderNet's code or of ours.
        model (nn.Module): of the target variant.
        source (str, optional): one of ``SOURCES``; needed for 'ann' and
            'ws', whose keys are equal, unless ``recorded`` tells.
        recorded (dict[str, str], optional): variants of the parts, from
            :func:`mmadder.checkpoints.variants.recorded_variants`.
    Returns:
        (dict[str, Tensor], float, float): the converted state dict; the
        largest deviation of its outputs on noise, relative to the largest
        output, before it is rounded to the model's dtype; and after. Outputs
        are logits of a classifier or features of a detector, in float64.
    Raises:
        InputError: the source is unknown, not what is recorded, does not fit
            the model, or the outputs deviate by more than 1e-5, after
            rounding by more than those of the source in its own dtype.
    """
    source = _find_source(state_dict, source, set((recorded or {}).values()))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(0))
    exact = {key: value.double() if value.is_floating_point() else value
             for key, value in state_dict.items()}
    ours, variant = (from_official(exact), 'ann') \
        if source == 'official' else (exact, source)
    converted = convert_variant(ours, variant, model)
    original = _load(
        set_weight_norm(copy.deepcopy(model), variant).double(), ours)
    expected = official_logits(exact, images) \
        if source == 'official' else outputs(original, images)
    deviation = largest_deviation(expected, outputs(
        _load(copy.deepcopy(model).double(), converted), images))
    like = {**state_dict, **model.state_dict()}
    converted = {key: value.to(like[key].dtype)
                 for key, value in converted.items()}
    rounding = largest_deviation(
        expected, outputs(_load(model, converted), images))
    _require_equal(deviation, TOLERANCE, source)
    if not rounding <= TOLERANCE:
        single = outputs(original, images, torch.float32)
        _require_equal(rounding, largest_deviation(expected, single), source)
    return converted, deviation, rounding


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


@torch.no_grad()
def outputs(model, images, dtype=torch.float64):
    """Logits of a classifier or features of a detector.

    Args:
        model (nn.Module): of MMPretrain or MMDetection; a copy is used.
        images (Tensor): (N, 3, H, W), normalized.
        dtype (torch.dtype): to compute in.
    Returns:
        Tensor | tuple of Tensor
    """
    model = copy.deepcopy(model).to(dtype).eval()
    if hasattr(model, 'head'):
        return model(images.to(dtype), mode='tensor')
    return model.extract_feat(images.to(dtype))


def largest_deviation(expected, actual):
    """Largest difference, relative to the largest expected value.

    Args:
        expected, actual (Tensor | list | tuple): of equal shapes; of lists,
            the largest deviation of their parts.
    Returns:
        float: NaN if a value is.
    """
    if isinstance(expected, (list, tuple)):
        parts = map(largest_deviation, expected, actual)
        return torch.tensor(list(parts)).max().item()
    difference = (expected - actual).abs().max()
    return (difference / expected.abs().max()).item()
