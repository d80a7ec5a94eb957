"""Convert a state dict and prove that it computes the same."""

import copy

import torch

from mmadder.engine.checkpoint import compare_state_dict
from mmadder.errors import InputError

from .official import from_official, is_official, official_logits
from .variants import convert_variant, set_weight_norm

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
            :func:`mmadder.engine.variants.recorded_variants`.
    Returns:
        (dict[str, Tensor], float): the converted state dict, and the largest
        deviation of its outputs on noise, relative to the largest output:
        logits of a classifier, features of a detector, both in float64.
    Raises:
        InputError: the source is unknown, not what is recorded, does not fit
            the model, or the outputs deviate by more than 1e-5.
    """
    source = _find_source(state_dict, source, set((recorded or {}).values()))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(0))
    ours = from_official(state_dict) if source == 'official' else state_dict
    variant = 'ann' if source == 'official' else source
    converted = convert_variant(ours, variant, model)
    expected = official_logits(state_dict, images) \
        if source == 'official' else outputs(_load(
            set_weight_norm(copy.deepcopy(model), variant), ours), images)
    deviation = largest_deviation(
        expected, outputs(_load(model, converted), images))
    if not deviation <= TOLERANCE:
        raise InputError(
            f'the outputs of the converted {type(model).__name__} deviate by '
            f'{deviation:.2g} from those of the {source} source, more than '
            f'{TOLERANCE:g}: is it of another variant or architecture?')
    return converted, deviation


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
def outputs(model, images):
    """Logits of a classifier or features of a detector, in float64.

    Args:
        model (nn.Module): of MMPretrain or MMDetection; a copy is used.
        images (Tensor): (N, 3, H, W), normalized.
    Returns:
        Tensor | tuple of Tensor
    """
    model = copy.deepcopy(model).double().eval()
    if hasattr(model, 'head'):
        return model(images.double(), mode='tensor')
    return model.extract_feat(images.double())


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
