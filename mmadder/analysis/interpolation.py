"""Accuracy on the straight line between two checkpoints, as in Figure 2(c).

"Towards Stable and Robust AdderNets" (NeurIPS 2021), section 5.2: the
smoother the way between two epochs of a training, the smoother the landscape
that the optimizer walks on.
"""
import json
from pathlib import Path

import numpy as np

from mmadder.errors import InputError
from mmadder.files import write_json
from mmadder.reporting.figures import COLOURS, subplots
from mmadder.reporting.tables import number
from mmadder.runs.run import METRICS

from .checkpoint_pair import interpolate
from .testing import reestimate_on_batches

STYLES = dict(interpolated='-', reestimated='--')
LABELS = dict(interpolated='', reestimated=', BN re-estimated')


class Interpolation:
    """Metrics along the line, kept in a JSON file as they come.

    Args:
        model (nn.Module)
        pair (sequence of dict): of :func:`load_pair`.
        test_set (TestSet)
        points (int): between the endpoints, at equal distances.
        batches (list): training batches for the second curve; none without.
        path (str | Path, optional): results are read from and written to it.
        settings (dict): what identifies the run; must equal that of an
            existing file.
    Raises:
        InputError: the file is of another run.
    """

    def __init__(self, model, pair, test_set, points=9, batches=(), path=None,
                 settings=()):
        self.model, self.pair, self.test_set = model, pair, test_set
        self.batches, self.path = batches, path
        self.ts = [i / (points + 1) for i in range(points + 2)]
        settings = dict(settings, points=points, images=len(test_set),
                        batches=len(batches))
        self.results = dict(settings=settings, curves={})
        if path and Path(path).exists():
            self.results = read_result(path)
            _require_equal(self.results['settings'], settings, path)

    def curves(self):
        """Names of the curves to measure."""
        return ['interpolated'] + (
            ['reestimated'] if self.batches else [])

    def run(self, progress=None):
        """Measure what is missing.

        Args:
            progress (callable, optional): ``(iterable, text)`` to iterable.
        Returns:
            dict: ``settings``, ``curves`` and, by curve and metric,
            ``summary`` of :func:`summarize`.
        """
        progress = progress or (lambda iterable, text: iterable)
        for t in self.ts:
            for curve in self.curves():
                points = self.results['curves'].setdefault(curve, {})
                if f'{t:.4f}' not in points:
                    points[f'{t:.4f}'] = self._measure(
                        curve, t, lambda iterable: progress(
                            iterable, f't = {t:.2f} {curve}'))
                    self._save()
        self._save()
        return self.results

    def _measure(self, curve, t, progress):
        self.model.load_state_dict(interpolate(*self.pair, t))
        if curve == 'reestimated':
            reestimate_on_batches(self.model, self.batches)
        metrics = self.test_set.evaluate(self.model, progress)
        return {key: float(value) for key, value in metrics.items()
                if isinstance(value, (int, float, np.number))}

    def _save(self):
        self.results['summary'] = summarize(self.results)
        if self.path:
            write_json(self.path, self.results)


def summarize(results):
    """Variance between the endpoints, by curve and metric.

    Args:
        results (dict): with ``curves``.
    Returns:
        dict: curve to metric to ``variance`` (population variance of the
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


def curve_points(results, curve, metric):
    """Return [(t, value)], in percent where the metric is a share."""
    scale = 100 if _is_share(metric) else 1
    return sorted(
        (float(t), scale * _number(metrics[metric]))
        for t, metrics in results['curves'].get(curve, {}).items())


def choose_metric(results, metric=None):
    """Return the metric to show: the one asked for, or the usual one.

    Raises:
        InputError: the results do not have it.
    """
    points = results['curves'].get('interpolated')
    if not points:
        raise InputError('the interpolation has no points yet: repeat its '
                         'command, which goes on where it stopped')
    first = next(iter(points.values()))
    if metric is None:
        return next((name for name in METRICS if name in first),
                    next(iter(first)))
    if metric not in first:
        raise InputError(f'metric {metric!r} was not measured, only '
                         f'{", ".join(first)}')
    return metric


def read_result(path):
    """Read a file of :class:`Interpolation`.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        found = json.loads(Path(path).read_text())
        found['settings'].items(), found['curves'].items()
        return found
    except FileNotFoundError as error:
        raise InputError(f'{path} does not exist') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{path} is no result of tools/analysis/'
                         'interpolate.py; name another file') from error


def plot_interpolations(results, metric=None):
    """Draw Figure 2(c): a metric along the line, endpoints hollow.

    Args:
        results (dict[str, dict]): of :func:`read_result` by name.
        metric (str, optional): default: the usual one.
    Returns:
        Figure: re-estimated curves dashed; the legend has the variances.
    """
    figure, axis = subplots(figsize=(6.2, 3.8))
    for i, (name, result) in enumerate(results.items()):
        shown = choose_metric(result, metric)
        for curve, style in STYLES.items():
            line = curve_points(result, curve, shown)
            if not line:
                continue
            variance = result['summary'][curve][shown]['variance']
            label = f'{name}{LABELS[curve]}: variance {number(variance)}'
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(*zip(*line), style, color=colour, label=label,
                      linewidth=1.4)
            for inside, face in ((True, colour), (False, 'white')):
                points = [(t, y) for t, y in line if (0 < t < 1) == inside]
                if points:
                    axis.plot(*zip(*points), 'o', color=colour, markersize=4,
                              markerfacecolor=face)
    axis.set(xlabel='t, from the first to the second checkpoint',
             ylabel=_axis_label(shown))
    axis.legend(frameon=False, fontsize=8)
    return figure


def _axis_label(metric):
    return f'{metric} in percent' if _is_share(metric) or (
        metric.startswith('accuracy')) else metric


def _require_equal(known, settings, path):
    other = [f'{key} {known.get(key)!r} (now {value!r})'
             for key, value in settings.items() if known.get(key) != value]
    if other:
        raise InputError(f'{path} is of another run, with '
                         f'{", ".join(other)}; name another file, or delete '
                         'it')


def _is_share(metric):
    """MMDetection's metrics are shares, MMPretrain's percent."""
    name = metric.rpartition('/')[2]
    return 'mAP' in name or name.startswith('AP')


def _number(value):
    return float('nan') if value is None else value
