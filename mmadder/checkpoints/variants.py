"""Which layers a checkpoint was trained with, and which ones a model has.

Convolutions (cnn), plain adders (ann) and adders with weight standardization
(ws) have equal keys, and so have adders with and without centered outputs:
only the config in a checkpoint of MMEngine tells them apart. Adaptive weight
normalization (awn) shows in the keys.
"""

from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmadder.config_nodes import literals, type_name
from mmadder.errors import InputError
from mmadder.layers import AWN, WS, AdderConv2d

WEIGHT_NORMS = dict(ann=type(None), ws=WS, awn=AWN)
CENTERED = '-centered'  # ends the name of a variant
_DESCRIPTIONS = dict(
    ann='without weight norm', ws='with weight standardization',
    awn='with adaptive weight normalization')
NAMES = dict(
    {'cnn': 'convolutions (cnn)'},
    **{name: f'adders {text} ({name})'
       for name, text in _DESCRIPTIONS.items()},
    **{name + CENTERED: f'centered adders {text} ({name}{CENTERED})'
       for name, text in _DESCRIPTIONS.items()})
NO_AWN = 'no adaptive weight normalization'  # ann, ws or cnn
# Types that a source may have where its target has others or none.
OWN_TYPES = dict(
    {name: name for name in ('AdderConv2d', 'AWN', 'WS', 'BN', 'SyncBN')},
    BatchNorm2d='BN', SyncBatchNorm='SyncBN')  # as classes are called
# Settings of a model that logits and features do not depend on.
ASIDE = ('type', '_scope_', 'data_preprocessor', 'train_cfg', 'test_cfg')
# Targets that compute the same, of tools/convert_checkpoint.py, where both
# are centered or neither is.
LOSSLESS = dict(ann=('awn', ), ws=('ann', 'awn'), awn=('ann', ))


def variant_of(layer: AdderConv2d) -> str:
    """Return 'ann', 'ws', 'awn' or, say, 'awn-centered' of a layer."""
    norm = layer.awn or layer.ws
    return next(name for name, kind in WEIGHT_NORMS.items()
                if type(norm) is kind) + CENTERED * layer.center


def split_variant(variant: str) -> tuple[str, bool]:
    """Return the name of the weight norm, and whether it is centered."""
    norm = variant.removesuffix(CENTERED)
    return norm, norm != variant


def is_lossless(source: str, target: str) -> bool:
    """Whether a conversion of variants computes the same."""
    (source, centered), (target, also) = map(split_variant, (source, target))
    return centered == also and (
        source == target or target in LOSSLESS.get(source, ()))


def recorded_variants(checkpoint: Any) -> dict[str, str]:
    """Read the variants of a model's parts from the config in its checkpoint.

    The config is parsed, not executed: the file may be anyone's.

    Args:
        checkpoint: as MMEngine writes it, with meta['cfg'].
    Returns:
        Names of modules, such as 'backbone', and their variants. Empty
        without such a config.
    """
    return dict(_parts(_recorded_model(checkpoint)))


def recorded_config(checkpoint: Any, config: Config) -> Config | None:
    """Return a config that builds the model of a checkpoint.

    Only numbers, strings and the like come from the file. What is built is
    named by ``config``, so that the file cannot choose what runs.

    Args:
        checkpoint: as MMEngine writes it, with meta['cfg'].
        config: of the same architecture; only settings may differ.
    Returns:
        A copy of ``config`` with the recorded model; None if the checkpoint
        records none.
    Raises:
        InputError: the recorded model has parts of other types.
    """
    recorded = _recorded_model(checkpoint)
    if not isinstance(recorded, dict):
        return None
    types = {**OWN_TYPES, **dict(_types(config.model))}
    model = {key: value for key, value in recorded.items()
             if key not in ASIDE}
    kept = {key: config.model[key] for key in ASIDE if key in config.model}
    result = config.copy()
    result.model = ConfigDict({**_with_types(model, types), **kept})
    return result


def _recorded_model(checkpoint):
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    text = meta.get('cfg') or meta.get('config')  # before MMEngine
    if not isinstance(text, str):
        return None
    try:
        return literals(text).get('model')
    except (SyntaxError, TypeError, ValueError, RecursionError,
            MemoryError):
        return None


def differing_connections(checkpoint: Any, config: Config) -> str:
    """Compare how layers are connected where no key of a file shows it.

    Args:
        checkpoint: one without config is not compared.
        config: of the model that is to take the checkpoint's weights.
    Returns:
        What differs, the strides of a bottleneck or the shortcuts of a
        neck; '' if nothing does.
    """
    recorded, model = _recorded_model(checkpoint), config.get('model')
    if not isinstance(recorded, dict) or not isinstance(model, dict):
        return ''
    own = _connections(model)
    return '; '.join(
        f'the config in the checkpoint has {name}={found!r}, the config has '
        f'{own[name]!r}, which no key shows: set it, or the network computes '
        'something else'
        for name, found in _connections(recorded).items()
        if own.get(name, found) != found)


def require_connections(checkpoint: Any, config: Config) -> None:
    """Raise InputError for :func:`differing_connections`."""
    difference = differing_connections(checkpoint, config)
    if difference:
        raise InputError(difference)


def _connections(model):
    parts = [model.get(name) for name in ('backbone', 'neck')]
    backbone, neck = (part if isinstance(part, dict) else {}
                      for part in parts)
    found = {'model.backbone.style': backbone.get('style', 'pytorch')}
    is_adder = type_name(neck).startswith('Adder')
    # Without norm nothing is lost: the shortcut is taken off the kernels.
    if neck.get('norm_cfg', is_adder or None) is not None:
        found['model.neck.shortcut'] = is_adder and neck.get('shortcut', True)
    return found


def _types(node):
    """Yield (name, type) of the parts of a config."""
    if isinstance(node, dict):
        if node.get('type'):
            yield type_name(node), node['type']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from _types(value)


def _with_types(node, types):
    """Copy a recorded config; its types are looked up, losses left out."""
    if isinstance(node, (list, tuple)):
        return [_with_types(value, types) for value in node]
    if not isinstance(node, dict):
        return node
    result = {key: _with_types(value, types) for key, value in node.items()
              if key != 'init_cfg'
              and not str(key).startswith('loss')}
    name = type_name(result)
    if 'type' in result and name not in types:
        raise InputError(
            f'the checkpoint was trained with {name}, which the config does '
            'not have, so they cannot be compared; give a config that '
            'differs from its own in the layers only (weight_norm), or, if '
            'it has convolutions only, --source cnn')
    if 'type' in result:
        result['type'] = types[name]
    return result


def require_variant(model: nn.Module,
                    state_dict: dict[str, Tensor],
                    recorded: dict[str, str],
                    name: str,
                    config: str | None = None) -> None:
    """Compare layers of a checkpoint with those of a model.

    Args:
        model: has its final layers, and any weights.
        state_dict: the checkpoint's, named as in model.
        recorded: of :func:`recorded_variants`, named alike.
        name: the file, for the error.
        config: its file, for the error.
    Raises:
        InputError: other layers in a part; the message says which ones, and
            how to convert the file if that is possible without loss.
    """
    for key, layer in model.named_modules():
        if f'{key}.weight' not in state_dict:
            continue
        part = max((part for part in recorded if _is_below(key, part)),
                   key=len, default=None)
        if isinstance(layer, AdderConv2d):
            own = variant_of(layer)
        elif isinstance(layer, nn.Conv2d) and not _has_adders(model, part):
            own = 'cnn'
        else:
            continue
        found = _found_variant(state_dict, key, recorded.get(part), own)
        if found != own and (found or own.startswith('awn')):
            raise InputError(
                f'checkpoint {name} has {NAMES.get(found, NO_AWN)} in '
                f'{part or key}, the config has {NAMES[own]} there. '
                f'{_advice(found, own, name, config)}')


def _found_variant(state_dict, key, recorded, own):
    """Return the variant of a layer in a file, None if it is not known."""
    has_awn = f'{key}.awn.nu' in state_dict
    if recorded is None and not has_awn:
        return None
    # Without record a file may be centered or not: as the layer is.
    norm, centered = split_variant(recorded or own)
    if has_awn:
        return 'awn' + CENTERED * centered
    return None if norm == 'awn' else recorded


def _advice(found, own, name, config):
    _, centered = split_variant(own)
    unknown = [norm + CENTERED * centered for norm in ('ann', 'ws')]
    sources = [source for source in ([found] if found else unknown)
               if is_lossless(source, own)]
    if not sources:
        return ('No conversion computes the same: use the config that the '
                'file was trained with, or train this one')
    what = 'This' if found else 'If it has adders, this'
    note = '' if config else \
        "\nwhere CONFIG is the file's own config, with the layers of this one"
    return (f'{what} converts it without loss:\n  python '
            f'tools/convert_checkpoint.py {config or "CONFIG"} {name} OUT.pth '
            f'--source {" or ".join(sources)}{note}')


def _has_adders(model, part):
    return part is not None and any(
        isinstance(layer, AdderConv2d)
        for layer in model.get_submodule(part).modules())


def _is_below(key, part):
    return not part or key.startswith(f'{part}.')


def _parts(node, path=()):
    """Yield (name, variant) of parts in a model's config."""
    if isinstance(node, dict):
        variant = _part_variant(node, path)
        if variant:
            yield '.'.join(path), variant
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    else:
        return
    for key, value in items:
        yield from _parts(value, (*path, str(key)))


def _part_variant(node, path):
    conv_cfg = node.get('conv_cfg', 'default')
    if conv_cfg == 'default':
        name = type_name(node)
        if name.startswith('Adder') and name != 'AdderConv2d':
            return 'awn'
        return 'cnn' if path in (('backbone', ), ('neck', )) else None
    if conv_cfg is None:
        return 'cnn'
    if type_name(conv_cfg) != 'AdderConv2d':
        return None
    norm = {'': 'ann', 'WS': 'ws', 'AWN': 'awn'}.get(
        type_name(conv_cfg.get('weight_norm')))
    return norm and norm + CENTERED * bool(conv_cfg.get('center'))
