"""Which layers a checkpoint was trained with, and which ones a model has.

Convolutions (cnn), plain adders (ann) and adders with weight standardization
(ws) have equal keys: only the config in a checkpoint of MMEngine tells them
apart. Adaptive weight normalization (awn) shows in the keys.
"""

import ast
from collections.abc import Iterable
from typing import Any

from torch import nn

from mmadder.errors import InputError
from mmadder.layers import AWN, WS, AdderConv2d

VARIANTS = dict(ann=type(None), ws=WS, awn=AWN)
NAMES = dict(
    cnn='convolutions (cnn)',
    ann='adders without weight norm (ann)',
    ws='adders with weight standardization (ws)',
    awn='adders with adaptive weight normalization (awn)')
EPS = 1e-5  # of AWN and WS, where a config does not say another
NO_AWN = 'no adaptive weight normalization'  # ann, ws or cnn
# Targets that compute the same, of tools/convert_checkpoint.py.
LOSSLESS = dict(ann=('awn', ), ws=('ann', 'awn'), awn=('ann', ))


def variant_of(layer):
    """Return 'ann', 'ws' or 'awn' of an AdderConv2d."""
    norm = layer.awn or layer.ws
    return next(name for name, kind in VARIANTS.items()
                if type(norm) is kind)


def recorded_variants(checkpoint: Any) -> dict[str, str]:
    """Read the variants of a model's parts from the config in its checkpoint.

    The config is parsed, not executed: the file may be anyone's.

    Args:
        checkpoint (dict): as MMEngine writes it, with meta['cfg'].
    Returns:
        dict[str, str]: names of modules, such as 'backbone', and their
        variants. Empty without such a config.
    """
    return {name: variant for name, (variant, _)
            in _recorded_parts(checkpoint).items()}


def recorded_eps(checkpoint: Any) -> dict[str, float]:
    """Read the eps of weight norms from the config in a checkpoint.

    Args:
        checkpoint (dict): as for :func:`recorded_variants`.
    Returns:
        dict[str, float]: names of modules whose config has a weight norm.
    """
    return {name: eps for name, (variant, eps)
            in _recorded_parts(checkpoint).items() if variant in ('ws', 'awn')}


def _recorded_parts(checkpoint):
    """{name of a module: (variant, eps)}."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return {}
    try:
        assigned = {target.id: node.value for node in ast.parse(text).body
                    if isinstance(node, ast.Assign)
                    for target in node.targets if isinstance(target, ast.Name)}
        return dict(_parts(_literal(assigned.get('model'))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def part_of(key: str, parts: Iterable[str]) -> str | None:
    """Return the innermost of some modules that a parameter lies in."""
    return max((part for part in parts if _is_below(key, part)), key=len,
               default=None)


def require_variant(model, state_dict, recorded, name, config=None):
    """Compare layers of a checkpoint with those of a model.

    Args:
        model (nn.Module): has its final layers, and any weights.
        state_dict (dict[str, Tensor]): the checkpoint's, named as in model.
        recorded (dict[str, str]): of :func:`recorded_variants`, named alike.
        name (str): the file, for the error.
        config (str, optional): its file, for the error.
    Raises:
        InputError: other layers in a part; the message says which ones, and
            how to convert the file if that is possible without loss.
    """
    for key, layer in model.named_modules():
        if f'{key}.weight' not in state_dict:
            continue
        part = part_of(key, recorded)
        if isinstance(layer, AdderConv2d):
            own = variant_of(layer)
        elif isinstance(layer, nn.Conv2d) and not _has_adders(model, part):
            own = 'cnn'
        else:
            continue
        found = _found_variant(state_dict, key, recorded.get(part))
        if found != own and (found or own == 'awn'):
            raise InputError(
                f'checkpoint {name} has {NAMES.get(found, NO_AWN)} in '
                f'{part or key}, the config has {NAMES[own]} there. '
                f'{_advice(found, own, name, config)}')


def _found_variant(state_dict, key, recorded):
    """Return the variant of a layer in a file, None if it is not known."""
    if f'{key}.awn.nu' in state_dict:
        return 'awn'
    return None if recorded == 'awn' else recorded


def _advice(found, own, name, config):
    sources = [source for source in ([found] if found else ('ann', 'ws'))
               if own in LOSSLESS.get(source, ())]
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
    """Yield (name, (variant, eps)) of parts in a model's config."""
    if isinstance(node, dict):
        variant = _part_variant(node, path)
        if variant:
            yield '.'.join(path), (variant, _eps(node.get('conv_cfg')))
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
        adders = str(node.get('type')).rpartition('.')[2].startswith('Adder')
        if adders and node['type'] != 'AdderConv2d':
            return 'awn'
        return 'cnn' if path in (('backbone', ), ('neck', )) else None
    if conv_cfg is None:
        return 'cnn'
    if not isinstance(conv_cfg, dict) or conv_cfg.get('type') != 'AdderConv2d':
        return None
    norm = conv_cfg.get('weight_norm')
    norm = norm.get('type') if isinstance(norm, dict) else norm
    return {None: 'ann', 'WS': 'ws', 'AWN': 'awn'}.get(norm)


def _eps(conv_cfg):
    norm = conv_cfg.get('weight_norm') if isinstance(conv_cfg, dict) else None
    return float(norm.get('eps', EPS)) if isinstance(norm, dict) else EPS


def _literal(node):
    """Evaluate constants, lists and dict(...); None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(value) for value in node.elts]
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value)
                for key, value in zip(node.keys, node.values)
                if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        value = {}
        for positional in node.args:
            value.update(_literal(positional) or {})
        value.update({keyword.arg: _literal(keyword.value)
                      for keyword in node.keywords if keyword.arg})
        return value
    return None
