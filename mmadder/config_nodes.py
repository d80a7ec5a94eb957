"""Looking into configs, whose types are names or classes."""
from collections.abc import Iterator
from typing import Any


def type_name(node: Any) -> str:
    """Return the last part of a node's ``type``, '' where it has none.

    Configs name types in a registry, with a scope or without, or are of
    MMEngine's new style and hold the class itself.

    Example:
        >>> type_name(dict(type='mmdet.FPN')), type_name(dict(type=dict))
        ('FPN', 'dict')
    """
    kind = node.get('type', '') if isinstance(node, dict) else ''
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def nodes(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield (dotted path, dict) of all dicts in nested dicts and lists."""
    if isinstance(node, dict):
        yield path, node
        items = [(key, node[key]) for key in node]
    elif isinstance(node, (list, tuple)):
        items = list(enumerate(node))
    else:
        return
    for key, value in items:
        yield from nodes(value, f'{path}.{key}' if path else str(key))
