"""Runs as a command line names them: ``[NAME=]WORK_DIR``."""
from collections.abc import Sequence
from pathlib import Path

from mmadder.errors import InputError


def split_name(text: str) -> tuple[str, str]:
    """Split ``[NAME=]PATH``; a path that exists may have = in its name.

    Returns:
        the name, '' if there is none, and the path.
    Raises:
        InputError: the path is empty, which would be this folder.
    """
    name, equals, path = text.partition('=')
    if not equals or Path(text).exists():
        name, path = '', text
    if not path:
        raise InputError(f'{text!r} names no folder or file, expected '
                         '[NAME=]PATH')
    return name, path


def parse_named(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``[NAME=]PATH`` arguments.

    Returns:
        paths by name, default: that of the file or folder, without suffix.
    Raises:
        InputError: two have one name.
    """
    found = {}
    for text in texts:
        name, path = split_name(text)
        own = Path(path).resolve()
        _add(found, name or (own.name if own.is_dir() else own.stem),
             Path(path))
    return found


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``[NAME=]WORK_DIR`` arguments.

    Args:
        texts: a directory that is no run, but has runs in it, stands for all
            of them.
    Returns:
        work directories by name, default: that of the directory.
    Raises:
        InputError: a directory does not exist or has no run, or two runs
            have one name.
    """
    runs = {}
    for text in texts:
        name, folder = split_name(text)
        for path in _find_runs(Path(folder)):
            _add(runs, name or path.resolve().name, path)
    return runs


def parse_groups(texts: Sequence[str],
                 names: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Read ``[NAME=]WORK_DIR[,WORK_DIR...]`` arguments, seeds together.

    Args:
        texts: a directory that exists may have = and , in its name.
        names: one for each argument, in place of those in them.
    Returns:
        work directories by name, default: that of the first of them.
    Raises:
        InputError: another number of names, two alike, or no directory.
    """
    if names and len(names) != len(texts):
        raise InputError(f'--names has {len(names)} names for {len(texts)} '
                         'runs')
    groups = {}
    for i, text in enumerate(texts):
        name, path = split_name(text)
        folders = [path] if Path(path).is_dir() else [
            folder for folder in path.split(',') if folder]
        if not folders:
            raise InputError(f'{text!r} names no folder, expected '
                             '[NAME=]DIR[,DIR...]')
        _add(groups, names[i] if names
             else name or Path(folders[0]).resolve().name, folders)
    return groups


def _add(found, name, value):
    if name in found:
        raise InputError(f'two runs are named {name!r}; give them other '
                         'names: NAME=PATH')
    found[name] = value


def _find_runs(folder):
    if not folder.is_dir():
        raise InputError(f'work directory {folder} does not exist')
    if any(folder.glob('*/vis_data')):
        return [folder]
    runs = sorted({path.parents[1] for path in folder.glob('*/*/vis_data')})
    if not runs:
        raise InputError(f'{folder} is no work directory of a run, and has '
                         'none in it: there is no TIMESTAMP/vis_data')
    return runs
