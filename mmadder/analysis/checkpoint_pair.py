"""Two checkpoints of one architecture, and the line between them."""
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from mmadder.engine.checkpoint import compare_state_dict, read_state_dict
from mmadder.errors import InputError

COUNTER = '.num_batches_tracked'
# Of a model's config, what the network computes does not depend on.
TRAINING_ONLY = ('init_cfg', 'train_cfg', 'test_cfg', 'data_preprocessor',
                 'eta', 'input_gradient')


def interpolate(first, second, t):
    """Return the state dict (1 - t) first + t second.

    Buffers, such as the tracked mean and variance of batch norms, are
    interpolated like weights. Integers, which only count, are the first's.

    Args:
        first, second (dict[str, Tensor]): equal keys and shapes.
        t (float): 0 gives the first, 1 the second.
    Returns:
        dict[str, Tensor]
    """
    return {key: torch.lerp(value, second[key].to(value.dtype), t)
            if value.is_floating_point() else value
            for key, value in first.items()}


def require_same_architecture(first, second, names):
    """Raise InputError unless two state dicts have equal keys and shapes.

    Args:
        first, second (dict[str, Tensor])
        names (tuple[str, str]): the files.
    """
    differences = []
    for kind, own, other in (('only in the first', first, second),
                             ('only in the second', second, first)):
        keys = [key for key in own
                if key not in other and not key.endswith(COUNTER)]
        if keys:
            differences.append(f'{len(keys)} keys {kind}: {_short(keys)}')
    shapes = [f'{key} ({tuple(value.shape)} and {tuple(second[key].shape)})'
              for key, value in first.items()
              if key in second and second[key].shape != value.shape]
    if shapes:
        differences.append(f'{len(shapes)} of different shapes: '
                           f'{_short(shapes)}')
    if differences:
        raise InputError(
            '{} and {} are of different architectures and have no line '
            'between them:\n  '.format(*names) + '\n  '.join(differences))


def require_same_settings(names):
    """Compare the model configs that MMEngine's checkpoints carry.

    Weight standardization has no parameters, so keys and shapes do not tell
    it from a plain adder. Files without a config pass.

    Args:
        names (tuple[str, str]): the files.
    Raises:
        InputError: they differ in what the network computes.
    """
    models = [_model_settings(name) for name in names]
    if None in models or models[0] == models[1]:
        return
    raise InputError(
        '{} and {} were trained with different models: {}'.format(
            *names, _first_difference(*models)))


def load_pair(model, names):
    """Read two checkpoints that fit each other and the model.

    Args:
        model (nn.Module)
        names (tuple[str, str]): the files.
    Returns:
        list[dict[str, Tensor]]: with the model's keys only.
    Raises:
        InputError: a file is missing or does not fit.
    """
    pair = [read_state_dict(name) for name in names]
    require_same_architecture(*pair, names)
    require_same_settings(names)
    own = model.state_dict()
    for name, state_dict in zip(names, pair):
        difference = compare_state_dict(model, state_dict)
        if difference:
            raise InputError(f'checkpoint {name} does not fit '
                             f'{type(model).__name__} of the config:\n  '
                             f'{difference}')
    return [{key: state_dict.get(key, own[key]) for key in own}
            for state_dict in pair]


def _model_settings(name):
    checkpoint = CheckpointLoader.load_checkpoint(name, map_location='cpu')
    text = (checkpoint.get('meta') or {}).get('cfg') \
        if isinstance(checkpoint, dict) else None
    if not isinstance(text, str):
        return None
    try:
        model = Config.fromstring(text, '.py').get('model')
    except (OSError, SyntaxError):
        return None
    return model and _without_training(model.to_dict())


def _without_training(value):
    if isinstance(value, dict):
        return {key: _without_training(item) for key, item in value.items()
                if key not in TRAINING_ONLY}
    if isinstance(value, (list, tuple)):
        return [_without_training(item) for item in value]
    return value


def _first_difference(first, second, path='model'):
    if isinstance(first, dict) and isinstance(second, dict):
        for key in {**first, **second}:
            if first.get(key) != second.get(key):
                return _first_difference(first.get(key), second.get(key),
                                         f'{path}.{key}')
    return f'{path} is {first!r} in the first, {second!r} in the second'


def _short(names, shown=5):
    more = len(names) - shown
    return ', '.join(names[:shown]) + (f' and {more} more' if more > 0 else '')
