"""Loss and metric over the epochs: Figures 1(a) and 2(d) of the paper."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmadder.errors import InputError
from mmadder.reporting.figures import colours_of, grid

from .metrics import (
    METRICS,
    TEST_LOSS,
    best,
    choose_metric,
    in_percent,
    is_loss,
    is_metric,
    is_of_adders,
    label,
    worsening,
)
from .scalars import read_scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, Any]
# The first share of the validations, in which every curve climbs.
CLIMB = 0.2
LEAST = 5  # points behind it that say how steady a curve is
ROWS = 12  # of the table of points


def read_curves(path: str | Path) -> Curves:
    """Read a run's curves.

    Args:
        path: work directory.
    Returns:
        dict: ``unit``, 'epoch' or 'iteration'; ``train``, (step, loss)
        pairs, the mean of an epoch's logged losses; ``validation``, metric
        to (step, value) pairs; ``convolutions``, the steps of those that are
        of networks on their way to adders.
    Raises:
        InputError: no scalars were written yet.
    """
    train, val = read_scalars(path)
    by_epoch = all('epoch' in record for record in train)
    losses = {}
    for record in train:
        step = record['epoch'] if by_epoch else record['step']
        losses.setdefault(step, []).append(record['loss'])
    curves = {}
    for record in val:
        for key, value in record.items():
            if is_metric(key, value):
                curves.setdefault(key, []).append((record['step'], value))
    if not losses and not curves:
        raise InputError(f'{path} has no logged loss and no validation yet')
    return dict(
        unit='epoch' if by_epoch else 'iteration',
        train=[(step, float(np.mean(values)))
               for step, values in losses.items()],
        validation=curves,
        convolutions=[record['step'] for record in val
                      if not is_of_adders(record)])


def choose_curve(runs: Mapping[str, Curves],
                 metric: str | None = None) -> str:
    """Return the metric to judge by: the test loss, else the usual one.

    Raises:
        InputError: see :func:`mmadder.runs.metrics.choose_metric`.
    """
    return choose_metric({name: list(run['validation'])
                          for name, run in runs.items()},
                         metric, (TEST_LOSS, *METRICS))


def smoothness(metric: str, values: Sequence[float]) -> dict[str, Any]:
    """How steady a curve is, behind the first fifth of its points.

    Args:
        metric: says which way is worse.
        values: by epoch.
    Returns:
        dict: ``wobble``, mean distance of a point from the mean of its two
        neighbours, 0 for a straight line; ``worst_step``, the largest step
        for the worse between neighbours; ``not_finite``, points that are
        NaN or infinite, which the others leave out. None where fewer than
        five points are left.
    """
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values)
    found = dict(wobble=None, worst_step=None,
                 not_finite=int((~finite).sum()))
    kept = values[finite]
    kept = kept[math.ceil(CLIMB * len(kept)):]
    if len(kept) >= LEAST:
        found['wobble'] = float(np.mean(abs(
            kept[1:-1] - (kept[:-2] + kept[2:]) / 2)))
        found['worst_step'] = float(max(worsening(metric, kept).max(), 0))
    return found


def summarize(run: Curves, metric: str) -> dict[str, Any]:
    """Numbers of one curve.

    Returns:
        dict: ``last``, ``best``, ``best_step``, :func:`smoothness` and
        ``train``, the last training loss. Percent for shares. Validations of
        networks on their way to adders do not count; NaN if all are.
    """
    points = [point for point in run['validation'][metric]
              if point[0] not in run.get('convolutions', ())]
    steps, values = zip(*points or [(run['validation'][metric][-1][0],
                                     math.nan)])
    values = in_percent(metric, values)
    top = best(metric, values)
    return dict(
        last=float(values[-1]), best=float(values[top]),
        best_step=steps[top], **smoothness(metric, values),
        train=run['train'][-1][1] if run['train'] else None)


def loss_gap(run: Curves) -> tuple[float, int] | None:
    """How many times as large as the training loss the test loss became.

    Returns:
        (ratio, step) of the largest; None without test loss.
    """
    train = dict(run['train'])
    ratios = [(loss / train[step], step)
              for step, loss in run['validation'].get(TEST_LOSS, ())
              if train.get(step, 0) > 0 and math.isfinite(loss)]
    return max(ratios, default=None)


def table_of_points(runs: Mapping[str, Curves], metric: str,
                    most: int = ROWS) -> tuple[tuple, list[tuple]]:
    """Return header and rows of a metric's values, and always the last.

    Args:
        runs: of :func:`read_curves` by name.
        metric: a validation curve of all.
        most: rows before the last, at equal distances.
    """
    points = {name: dict(run['validation'][metric])
              for name, run in runs.items()}
    steps = sorted({step for values in points.values() for step in values})
    shown = steps[::-(-len(steps) // most)]
    if steps[-1] not in shown:
        shown.append(steps[-1])
    return (next(iter(runs.values()))['unit'], *points), [
        (step, *(values.get(step) for values in points.values()))
        for step in shown]


def plot_losses(runs: Mapping[str, Curves], metric: str) -> Figure:
    """Draw training loss (dashed) and a validation curve of each run.

    Args:
        runs: of :func:`read_curves` by name.
        metric: validation curve, the test loss for the paper's figures.
    Returns:
        one panel if the metric is a loss, else two.
    Raises:
        InputError: more runs than can be told apart.
    """
    together = is_loss(metric)
    figure, axes = grid(1, 1 if together else 2, 6.4 if together else 4.6,
                        3.8)
    left, right = axes[0, 0], axes[0, -1]
    unit = next(iter(runs.values()))['unit']
    for (name, run), colour in zip(runs.items(), colours_of(runs).values()):
        if run['train']:
            left.plot(*zip(*run['train']), '--' if together else '-',
                      color=colour, linewidth=1,
                      label=f'{name}, train' if together else name)
        steps, values = zip(*run['validation'][metric])
        right.plot(steps, in_percent(metric, values), color=colour,
                   linewidth=1.5, label=name)
    left.set(xlabel=unit, ylabel='loss' if together else 'training loss',
             ylim=(0, None))
    right.set(xlabel=unit)
    if together:
        limit = _loss_limit(runs, metric)
        left.set_ylim(0, limit)
    else:
        right.set_ylabel(label(metric))
    left.legend(frameon=False, fontsize=8)
    return figure


def _loss_limit(runs, metric):
    """Let single peaks leave the picture, not hide everything else."""
    values = np.concatenate(
        [[y for _, y in run['validation'][metric]] for run in runs.values()]
        + [[y for _, y in run['train']] for run in runs.values()])
    values = values[np.isfinite(values)]
    return 1.1 * np.quantile(values, 0.98) if len(values) else None
