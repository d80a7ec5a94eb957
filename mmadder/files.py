"""Files that are there or not, and files that are written whole or not."""
import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmadder.errors import InputError


def require_file(path: str | Path, owner: str, advice: str = '') -> None:
    """Raise InputError unless ``path`` is a file, or a URL.

    Args:
        path: as the user wrote it.
        owner: what it is, for the message, such as 'checkpoint'.
        advice: what to do without it, ends the message.
    """
    if '://' not in str(path) and not os.path.isfile(path):
        raise InputError(f'{owner} {str(path)!r} does not exist, seen from '
                         f'{os.getcwd()}{advice and "; "}{advice}')


def require_writable(path: str | Path) -> None:
    """Make missing folders; raise InputError if no file can be written.

    Call it before work whose result would be lost.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f'{path} is a directory, expected a file to write')
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise InputError(
            f'{path} cannot be written: {error.strerror}') from error


def _partial(path):
    return path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Yields the name of a neighbour with the same suffix, which takes the place
    of ``path`` when the block ends, and goes where it raises. Missing folders
    are made.

    Raises:
        InputError: ``path`` is a directory, or cannot be written.
    """
    path = Path(path)
    require_writable(path)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def shipped(name: str) -> Path:
    """A folder that comes with mmadder: inside the package, or beside it.

    Args:
        name: such as 'configs'.
    Raises:
        InputError: it did not come along.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim' / name, package.parent / name):
        if folder.is_dir():
            return folder.resolve()
    raise InputError(f'mmadder: no {name} below {package}; install the '
                     'package anew')


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding='utf-8')


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON, whole or not at all; NaN and infinity become null.

    Args:
        path: file to write.
        content: nested dicts, lists, NumPy arrays, numbers and strings.
    """
    write_text(path, json.dumps(plain(content), indent=1) + '\n')


def save_checkpoint(content: dict, path: str | Path) -> None:
    """``torch.save``, whole or not at all."""
    with whole_file(path) as partial:
        torch.save(content, partial)


def plain(value: Any) -> Any:
    """Return what JSON has a name for; numbers that are none become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
