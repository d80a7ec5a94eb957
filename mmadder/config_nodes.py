"""Looking into configs, whose types are names or classes."""
import ast
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.utils import get_object_from_string

from mmadder.errors import InputError

LIBRARIES = ('mmdet', 'mmpretrain')
# Where the classes may be that a config of a file names by their paths.
KNOWN = (*LIBRARIES, 'mmadder', 'mmcv', 'mmengine')


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


def read_config(text: str, source: str) -> Config:
    """Read a config that a file brings along; nothing of it is executed.

    Args:
        text: as ``Config.pretty_text``.
        source: the file, for the error.
    Raises:
        InputError: it is more than names and values, or names something that
            is no class of MMDetection or its like.
    """
    try:
        values = literals(text, strict=True)
    except (SyntaxError, TypeError, ValueError, RecursionError,
            MemoryError) as error:
        raise InputError(f'the config in {source} is more than names and '
                         f'values ({error}): give it with one of your own, '
                         'mmadder.load(CONFIG, FILE)') from error
    for path, node in nodes(values):
        kind = node.get('type')
        if isinstance(kind, str) and '.' in kind and not _is_known(kind):
            raise InputError(f'the config in {source} has {path}.type='
                             f'{kind!r}, which is no class of '
                             f'{", ".join(KNOWN)}')
    return Config(values)


def _is_known(path):
    if path.partition('.')[0] not in KNOWN:
        return False
    found = get_object_from_string(path)  # None: a registry has the name
    return found is None or isinstance(found, type)


def literals(text: str, strict: bool = False) -> dict[str, Any]:
    """Read the values that a text of Python gives to names.

    It is parsed, not executed: the file may be anyone's.

    Args:
        text: of a config.
        strict: raise for what is no constant, list, tuple or dict. Otherwise
            it is None, and statements are passed over.
    Raises:
        SyntaxError, ValueError, TypeError, RecursionError, MemoryError
    """
    found = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and all(
                isinstance(name, ast.Name) for name in statement.targets):
            value = _literal(statement.value, strict)
            found.update((name.id, value) for name in statement.targets)
        elif strict:
            raise ValueError(f'line {statement.lineno}')
    return found


def _literal(node, strict):
    """Evaluate constants, lists, tuples, dicts and dict(...)."""
    if isinstance(node, (ast.List, ast.Tuple)):
        kind = list if isinstance(node, ast.List) else tuple
        return kind(_literal(value, strict) for value in node.elts)
    if isinstance(node, ast.Dict) and (not strict or None not in node.keys):
        return {_literal(key, strict): _literal(value, strict)
                for key, value in zip(node.keys, node.values)
                if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        if strict and any(word.arg is None for word in node.keywords):
            raise ValueError(f'line {node.lineno}')
        value = {}
        for positional in node.args:
            value.update(_literal(positional, strict) or {})
        value.update({keyword.arg: _literal(keyword.value, strict)
                      for keyword in node.keywords if keyword.arg})
        return value
    try:
        return ast.literal_eval(node)  # -1 is an operation
    except (TypeError, ValueError):
        if strict:
            raise ValueError(f'line {node.lineno}') from None
        return None
