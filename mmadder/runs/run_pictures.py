"""Curves of trainings, as matplotlib figures."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmadder.reporting.figures import MARKERS, colours_of, mosaic, subplots

from .scalars import Records, step_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_WIDTH = 110  # characters in a line


def plot_training(runs: Mapping[str, tuple[Records, Records]],
                  metric: str) -> Figure:
    """Draw loss and validation metric over the training.

    Args:
        runs: name to the result of :func:`read_scalars`.
        metric: key such as 'pascal_voc/mAP', of all runs.
    Raises:
        InputError: more runs than can be told apart.
    """
    colours = colours_of(runs)
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.4))
    for name, (train, val) in runs.items():
        left.plot([record['step'] for record in train],
                  [record['loss'] for record in train],
                  color=colours[name], label=name, linewidth=1.3)
        right.plot([record['step'] for record in val],
                   [record[metric] for record in val], color=colours[name],
                   marker='o', markersize=4, label=name,
                   clip_on=False)  # the best point lies at the border
    left.set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    right.set(xlabel=step_name(*next(iter(runs.values()))),
              ylabel=f'validation {metric}', ylim=(0, None))
    right.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1:
        left.legend(frameon=False)
    return figure


def plot_comparison(result: Mapping[str, Any]) -> Figure:
    """Draw loss, validation metric and, if known, AP of each class.

    Args:
        result: of :func:`mmadder.runs.comparison.compare`.
    Raises:
        InputError: more runs than can be told apart.
    """
    runs = result['runs']
    styles = list(zip(colours_of(runs).values(), MARKERS))
    classes = list(dict.fromkeys(
        name for run in runs.values() for name in run['class_ap']))
    rows = [['loss', 'validation'], ['classes', 'classes']]
    heights = [3.8, 2.8]
    if not classes:
        rows, heights = rows[:1], heights[:1]
    figure, axes = mosaic(rows, 9.5, heights)
    for run, (colour, marker) in zip(runs.values(), styles):
        _draw_band(axes['loss'], run['loss'], colour)
        _draw_band(axes['validation'], run['validation'], colour,
                   marker=marker, markersize=4)
    axes['loss'].set(xlabel='iteration', ylabel='training loss, smoothed')
    axes['validation'].set(xlabel=result['step'],
                           ylabel=f'validation {result["metric"]}')
    axes['validation'].xaxis.get_major_locator().set_params(integer=True)
    if classes:
        _draw_classes(axes['classes'], runs.values(), classes, styles)
    figure.legend(
        handles=axes['validation'].get_lines(), labels=list(runs),
        frameon=False, fontsize=9, loc='outside upper center',
        ncols=min(max(LEGEND_WIDTH // (max(map(len, runs)) + 6), 1), 4))
    return figure


def _draw_band(axis, curve, colour, **style):
    axis.plot(curve['steps'], curve['mean'], color=colour, linewidth=1.3,
              **style)
    axis.fill_between(curve['steps'], curve['low'], curve['high'],
                      color=colour, alpha=0.18, linewidth=0)


def _draw_classes(axis, runs, classes, styles):
    """Put the runs' points of one class side by side."""
    axis.grid(False, axis='x')
    for i, (run, (colour, marker)) in enumerate(zip(runs, styles)):
        shift = (i - (len(runs) - 1) / 2) * min(0.1, 0.6 / len(runs))
        ap = [run['class_ap'].get(name) or {} for name in classes]
        axis.errorbar(
            np.arange(len(classes)) + shift,
            [figure.get('mean', np.nan) for figure in ap],
            yerr=[figure.get('std') or 0 for figure in ap], color=colour,
            marker=marker, markersize=5, linestyle='none', linewidth=1.2)
    level = len(classes) <= 10
    axis.set_xticks(range(len(classes)), classes, rotation=0 if level else 45,
                    ha='center' if level else 'right',
                    rotation_mode='anchor')
    axis.set(ylabel='AP, last evaluation', ylim=(0, 1.02),
             xlim=(-0.6, len(classes) - 0.4))
