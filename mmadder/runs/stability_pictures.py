"""Curves and heat maps of the stability report, as matplotlib figures."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mmadder.reporting.figures import INK, colours_of, grid
from mmadder.reporting.tables import number

from .losses import Curves
from .metrics import in_percent, is_loss, label
from .recording import Recording
from .stability import lag, studied_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_FINITE = '#868e96'


def plot_curve(curves: Mapping[str, Curves], key: str) -> Figure:
    """Draw one curve of all runs.

    Args:
        curves: of :func:`read_curves` by name.
        key: a validation metric, or 'train' for the training loss.
    Raises:
        InputError: more runs than can be told apart.
    """
    figure, axes = grid(1, 1, 4.6, 3.2)
    axis = axes[0, 0]
    title = curve_title(key)
    tops = []
    colours = colours_of(curves)
    for name, run in curves.items():
        points = run['train'] if key == 'train' else run['validation'][key]
        steps, values = zip(*points)
        values = in_percent(key, values)
        axis.plot(steps, values, color=colours[name], linewidth=1.4,
                  label=name)
        finite = values[np.isfinite(values)]
        tops += [np.quantile(finite, 0.97)] if len(finite) else []
    axis.set(xlabel=next(iter(curves.values()))['unit'], title=title)
    if (key == 'train' or is_loss(key)) and tops:
        axis.set_ylim(0, 1.15 * max(tops))
    axis.legend(frameon=False, fontsize=8)
    return figure


def curve_title(key: str) -> str:
    """What :func:`plot_curve` calls a curve."""
    return 'training loss' if key == 'train' else label(key)


def plot_maps(recorded: Mapping[str, Recording],
              key: str) -> dict[str, Figure]:
    """Draw a quantity by layer and step, a heat map per run, on one scale.

    Args:
        recorded: recordings by run.
        key: 'lag', or a statistic, shown by its growth.
    Returns:
        by run; empty where nothing is finite.
    """
    grids = {}
    for name, recording in recorded.items():
        layers = [layer for layer in studied_layers(recording)
                  if recording.has(layer, 'bn_mean' if key == 'lag' else key)]
        if layers:
            rows = [lag(recording, layer) if key == 'lag'
                    else _growth(recording.series(layer, key))
                    for layer in layers]
            grids[name] = layers, np.array(rows)
    finite = [values[np.isfinite(values)] for _, values in grids.values()]
    finite = np.concatenate(finite or [np.empty(0)])
    if not len(finite):
        return {}
    high = max(np.quantile(abs(finite), 0.99), 0.3)
    return {name: _heat_map(name, recorded[name], layers, values, high, key)
            for name, (layers, values) in grids.items()}


def short_name(layer: str) -> str:
    """Leave out the part of a name that most layers share."""
    return layer.removeprefix('backbone.')


def _heat_map(title, recording, layers, values, high, key):
    figure, axes = grid(1, 1, 4.6, 1.1 + 0.15 * len(layers))
    axis = axes[0, 0]
    axis.grid(False)
    image = axis.imshow(
        values, aspect='auto', interpolation='nearest', vmax=high,
        **(dict(cmap='YlGnBu', vmin=0) if key == 'lag' else
           dict(cmap='RdBu_r', vmin=-high)))
    axis.set_facecolor(NOT_FINITE)
    axis.set_yticks(range(len(layers)), map(short_name, layers), fontsize=7)
    shown = np.unique(np.linspace(0, len(recording.steps) - 1, 6).astype(int))
    axis.set_xticks(shown, [recording.steps[i] for i in shown], fontsize=8)
    axis.set_xlabel(recording.unit, fontsize=8)
    axis.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    if key != 'lag':
        bar.ax.yaxis.set_major_formatter(
            lambda value, _: f'{number(float(f"{10**value:.2g}"))}×')
    bar.outline.set_edgecolor(INK)
    return figure


def _growth(values):
    """Decimal logarithm of values over the first finite one."""
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return np.full(len(values), math.nan)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(values > 0, np.log10(values / known[0]), math.nan)
