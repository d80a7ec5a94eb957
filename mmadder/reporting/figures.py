"""How figures look, as matplotlib figures, and how they are written.

matplotlib comes with mmdet; it is imported where it is used, so that the
package loads without a drawing backend.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmadder.errors import InputError
from mmadder.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, ACCENT, SECOND = '#1f2933', '#e4e7eb', '#0b7285', '#c2410c'
# Told apart also by those who see no red or no green; markers help.
COLOURS = (ACCENT, SECOND, '#7048e8', '#e8a100', '#1f2933', '#d6336c',
           '#37b24d', '#868e96')
MARKERS = 'osD^vPX*'


def subplots(*args: int, **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure in our style and its axes; arguments of both."""
    figure = _figure(**kwargs)
    axes = figure.subplots(*args)
    for axis in np.ravel(axes):
        _style(axis)
    return figure, axes


def grid(rows: int, columns: int, width: float,
         height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, (rows, columns), sizes in inches each."""
    figure, axes = subplots(rows, columns,
                            figsize=(width * columns, height * rows))
    return figure, np.reshape(axes, (rows, columns))


def mosaic(rows: Sequence[Sequence[str]], width: float,
           heights: Sequence[float]) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure and its axes by name; one name may fill a row."""
    figure = _figure(figsize=(width, sum(heights)))
    axes = figure.subplot_mosaic(rows, height_ratios=heights)
    for axis in axes.values():
        _style(axis)
    return figure, axes


def colours_of(names: Iterable[Any], kind: str = 'runs',
               advice: str = 'show fewer at once') -> dict[Any, str]:
    """Give each curve of a figure a colour of its own.

    Args:
        names: of the curves, in the order of the legend.
        kind: what they are, for the message.
        advice: what to do where they are too many.
    Raises:
        InputError: more than can be told apart.
    """
    names = list(names)
    if len(names) > len(COLOURS):
        raise InputError(
            f'{len(names)} {kind} are too many for one figure, at most '
            f'{len(COLOURS)} can be told apart; {advice}')
    return dict(zip(names, COLOURS))


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, whole or not at all; missing folders are made.

    Raises:
        InputError: the name's end tells no format that matplotlib writes.
    """
    formats = figure.canvas.get_supported_filetypes()
    if Path(path).suffix[1:].lower() not in formats:
        raise InputError(f'{path} is no name for a picture, it must end with '
                         f'.{", .".join(sorted(formats))}')
    with whole_file(path) as partial:
        figure.savefig(partial)


def _figure(**kwargs):
    from matplotlib.figure import Figure
    return Figure(layout='constrained', dpi=120, **kwargs)


def _style(axis):
    axis.grid(color=GRID)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
    axis.tick_params(colors=INK)
