"""Accuracy on the straight line between two checkpoints, as in Figure 2(c).

"Towards Stable and Robust AdderNets" (NeurIPS 2021), section 5.2: the
smoother the way between two epochs of a training, the smoother the landscape
that the optimizer walks on.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from mmadder.errors import InputError
from mmadder.files import write_json
from mmadder.reporting.figures import colours_of, subplots
from mmadder.reporting.tables import number
from mmadder.runs.metrics import choose_metric, in_percent, label

from .checkpoint_pair import StateDict, interpolate
from .testing import TestSet, reestimate_on_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What an interpolation's JSON file holds.
Result = dict[str, Any]
STYLES = dict(interpolated='-', reestimated='--')
LABELS = dict(interpolated='', reestimated=', BN re-estimated')


class Interpolation:
    """Metrics along the line, kept in a JSON file as they come.

    Args:
        model: takes the weights of each point.
        pair: of :func:`load_pair`.
        test_set: to test on.
        points: between the endpoints, at equal distances.
        batches: training batches for the second curve; none without.
        path: results are read from and written to it.
        settings: what identifies the run; must equal that of an existing
            file.
    Raises:
        InputError: the file is of another run.
    """

    def __init__(self, model: nn.Module, pair: Sequence[StateDict],
                 test_set: TestSet, points: int = 9, batches: Sequence = (),
                 path: str | Path | None = None,
                 settings: Mapping[str, Any] = {}) -> None:
        self.model, self.pair, self.test_set = model, pair, test_set
        self.batches, self.path = batches, path
        self.ts = [i / (points + 1) for i in range(points + 2)]
        settings = dict(settings, points=points, images=len(test_set),
                        batches=len(batches))
        self.results = dict(settings=settings, curves={})
        if path and Path(path).exists():
            self.results = read_result(path)
            _require_equal(self.results['settings'], settings, path)

    def curves(self) -> list[str]:
        """Names of the curves to measure."""
        return ['interpolated'] + (
            ['reestimated'] if self.batches else [])

    def run(self, progress: Callable[[Iterable, str], Iterable] =
            lambda iterable, text: iterable) -> Result:
        """Measure what is missing.

        Args:
            progress: wraps the batches, with a text about the point.
        Returns:
            ``settings``, ``curves`` and, by curve and metric, ``summary`` of
            :func:`summarize`.
        """
        for t in self.ts:
            for curve in self.curves():
                points = self.results['curves'].setdefault(curve, {})
                if f'{t:.4f}' not in points:
                    points[f'{t:.4f}'] = self._measure(curve, t, progress)
                    self._save()
        self._save()
        return self.results

    def _measure(self, curve, t, progress):
        self.model.load_state_dict(interpolate(*self.pair, t))
        if curve == 'reestimated':
            reestimate_on_batches(self.model, self.batches)
        metrics = self.test_set.evaluate(
            self.model,
            lambda batches: progress(batches, f't = {t:.2f} {curve}'))
        return {key: float(value) for key, value in metrics.items()
                if isinstance(value, (int, float, np.number))}

    def _save(self):
        self.results['summary'] = summarize(self.results)
        if self.path:
            write_json(self.path, self.results)


def summarize(results: Result) -> dict[str, dict[str, dict[str, Any]]]:
    """Variance between the endpoints, by curve and metric.

    Returns:
        curve to metric to ``variance`` (population variance of the
        points strictly between the endpoints, of values in percent),
        ``least``, ``mean`` of them, and ``endpoints``.
    """
    summary = {}
    for curve, points in results['curves'].items():
        summary[curve] = {}
        for metric in next(iter(points.values()), {}):
            line = curve_points(results, curve, metric)
            between = [y for t, y in line if 0 < t < 1]
            summary[curve][metric] = dict(
                variance=float(np.var(between)) if between else None,
                least=min(between, default=None),
                mean=float(np.mean(between)) if between else None,
                endpoints=[y for t, y in line if t in (0, 1)])
    return summary


def curve_points(results: Result, curve: str,
                 metric: str) -> list[tuple[float, float]]:
    """Return (t, value) pairs, in percent where the metric is a share."""
    points = results['curves'].get(curve, {})
    values = in_percent(metric, (of[metric] for of in points.values()))
    return sorted(zip(map(float, points), values.tolist()))


def common_metric(results: Mapping[str, Result],
                  metric: str | None = None) -> str:
    """Return the metric to show: the one asked for, or the usual one.

    Args:
        results: of :func:`read_result` by name.
        metric: take this one.
    Raises:
        InputError: an interpolation has no points yet, or not the metric.
    """
    measured = {}
    for name, result in results.items():
        points = result['curves'].get('interpolated')
        if not points:
            raise InputError(f'the interpolation {name} has no points yet: '
                             'repeat its command, which goes on where it '
                             'stopped')
        measured[name] = list(next(iter(points.values())))
    return choose_metric(measured, metric)


def read_result(path: str | Path) -> Result:
    """Read a file of :class:`Interpolation`.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        found = json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f'{path} does not exist') from error
    except ValueError:
        found = None
    if not (isinstance(found, dict) and all(
            isinstance(found.get(key), dict)
            for key in ('settings', 'curves'))):
        raise InputError(f'{path} is no result of tools/analysis/'
                         'interpolate.py; name another file')
    return found


def curve_labels(results: Mapping[str, Result],
                 metric: str) -> dict[str, tuple[str, str]]:
    """Return (name, curve) of what was measured, by its label."""
    return {f'{name}, {metric}{LABELS[curve]}': (name, curve)
            for name, result in results.items()
            for curve, points in result['curves'].items() if points}


def table_of_points(results: Mapping[str, Result],
                    metric: str) -> tuple[tuple, list[tuple]]:
    """Return header and rows: all points, then what lies between.

    One column for each of :func:`curve_labels`, numbered from (1).
    """
    columns = [(dict(curve_points(results[name], curve, metric)),
                results[name]['summary'][curve][metric])
               for name, curve in curve_labels(results, metric).values()]
    ts = sorted({t for points, _ in columns for t in points})
    return ('t', *(f'({i + 1})' for i in range(len(columns)))), [
        *((f'{t:.2f}', *(points.get(t) for points, _ in columns))
          for t in ts),
        *((what, *(summary[what] for _, summary in columns))
          for what in ('mean', 'least', 'variance'))]


def plot_interpolations(results: Mapping[str, Result],
                        metric: str | None = None) -> Figure:
    """Draw Figure 2(c): a metric along the line, endpoints hollow.

    Args:
        results: of :func:`read_result` by name.
        metric: that all have, default: the usual one.
    Returns:
        re-estimated curves dashed; the legend has the variances.
    Raises:
        InputError: no common metric, or more results than can be told apart.
    """
    metric = common_metric(results, metric)
    colours = colours_of(results, 'interpolations')
    figure, axis = subplots(figsize=(6.2, 3.8))
    for name, curve in curve_labels(results, metric).values():
        variance = results[name]['summary'][curve][metric]['variance']
        _draw_line(axis, curve_points(results[name], curve, metric),
                   colours[name], STYLES[curve],
                   f'{name}{LABELS[curve]}: variance {number(variance)}')
    axis.set(xlabel='t, from the first to the second checkpoint',
             ylabel=label(metric))
    axis.legend(frameon=False, fontsize=8)
    return figure


def _draw_line(axis, line, colour, style, text):
    axis.plot(*zip(*line), style, color=colour, label=text, linewidth=1.4)
    for inside, face in ((True, colour), (False, 'white')):
        points = [(t, y) for t, y in line if (0 < t < 1) == inside]
        if points:
            axis.plot(*zip(*points), 'o', color=colour, markersize=4,
                      markerfacecolor=face)


def _require_equal(known, settings, path):
    other = [f'{key} {known.get(key)!r} (now {value!r})'
             for key, value in settings.items() if known.get(key) != value]
    if other:
        raise InputError(f'{path} is of another run, with '
                         f'{", ".join(other)}; name another file, or delete '
                         'it')
