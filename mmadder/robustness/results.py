"""Reading the results of runs."""

import json
from pathlib import Path

from mmadder.errors import InputError
from mmadder.files import require_file

DATA_HINT = (
    'data is a digest of images and labels; that of classifiers left the '
    'labels out before version 0.2, so measure older files anew')


def read_results(path: str | Path) -> dict:
    """Read the JSON file of an evaluation.

    Raises:
        InputError: it is missing or something else.
    """
    require_file(path, 'result')
    try:
        found = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(
            isinstance(found.get(key), dict) for key in ('settings', 'rows')):
        raise InputError(f'{path} is no result of tools/robustness.py; name '
                         'another file')
    return found


def sweep_points(row: dict[str, dict], note: str,
                 metric: str) -> list[tuple[float, float]]:
    """Return the points of a sweep in one row.

    Args:
        row: label to entry.
        note: 'eps' or 'steps'.
        metric: 'accuracy' or 'mAP'.
    Returns:
        Pairs of eps or steps and the figure, sorted.
    """
    return sorted((entry['column']['attack'][note], entry[metric])
                  for entry in row.values()
                  if entry['column']['note'].startswith(note))
