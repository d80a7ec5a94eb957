"""Looking into configs, whose types are names or classes."""
from collections.abc import Iterator
from typing import Any

from mmengine.registry import DATASETS

LIBRARIES = ('mmdet', 'mmpretrain')


def type_name(node: Any) -> str:
    """Return the last part of a type, '' where there is none.

    Configs name types in a registry, with a scope or without, or are of
    MMEngine's new style: they hold the class itself, and its dotted path
    once they are written to a file.

    Args:
        node: with a ``type``, or the type.
    Example:
        >>> type_name(dict(type='mmdet.FPN')), type_name(dict(type=dict))
        ('FPN', 'dict')
    """
    kind = node.get('type') if isinstance(node, dict) else node
    return str(getattr(kind, '__name__', kind or '')).rpartition('.')[2]


def library(node: dict) -> str | None:
    """Return 'mmdet' or 'mmpretrain' if a node's type says it is of one."""
    kind = node.get('type')
    paths = [base.__module__ for base in kind.__mro__] \
        if isinstance(kind, type) else [str(kind)]
    roots = [path.partition('.')[0] for path in paths if '.' in path]
    return next((root for root in roots if root in LIBRARIES), None)


def own_metainfo(dataset: dict, scope: str) -> dict:
    """Return the ``METAINFO`` of a data set's class, unread."""
    kind = dataset['type']
    if not isinstance(kind, type):
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    return getattr(kind, 'METAINFO', {})


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
