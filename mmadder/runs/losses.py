"""Loss and metric over the epochs: Figures 1(a) and 2(d) of the paper."""
import math

import numpy as np

from mmadder.errors import InputError
from mmadder.reporting.figures import COLOURS, read_scalars

from .distributions import grid
from .run import METRICS

TEST_LOSS = 'test/cross_entropy'
# The first share of the validations, in which every curve climbs.
CLIMB = 0.2
LEAST = 5  # points behind it that say how steady a curve is


def read_curves(path):
    """Read a run's curves.

    Args:
        path (Path): work directory.
    Returns:
        dict: ``unit``, 'epoch' or 'iteration'; ``train``, (step, loss)
        pairs, the mean of an epoch's logged losses; ``validation``, metric
        to (step, value) pairs.
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
            if '/' in key and isinstance(value, (int, float)):
                curves.setdefault(key, []).append((record['step'], value))
    if not losses and not curves:
        raise InputError(f'{path} has no logged loss and no validation yet')
    return dict(
        unit='epoch' if by_epoch else 'iteration',
        train=[(step, float(np.mean(values)))
               for step, values in losses.items()],
        validation=curves)


def choose_curve(runs, metric=None):
    """Return test loss, accuracy or mAP, the first that all runs have.

    Args:
        runs (dict[str, dict]): of :func:`read_curves`.
        metric (str, optional): take this one.
    Raises:
        InputError: a run does not have ``metric``, or there is none that all
            have.
    """
    if metric is not None:
        for name, run in runs.items():
            if metric not in run['validation']:
                raise InputError(
                    f'run {name} has no metric {metric!r}, only '
                    f'{", ".join(run["validation"]) or "none"}')
        return metric
    common = [key for key in next(iter(runs.values()))['validation']
              if all(key in run['validation'] for run in runs.values())]
    for key in (TEST_LOSS, *METRICS, *common):
        if key in common:
            return key
    raise InputError('the runs have no validation metric in common: '
                     + '; '.join(f'{name} has '
                                 f'{", ".join(run["validation"]) or "none"}'
                                 for name, run in runs.items()))


def is_loss(metric):
    """Whether less is better."""
    return metric.endswith(('loss', 'cross_entropy'))


def in_percent(metric, values):
    """MMDetection's metrics are shares; MMPretrain's are percent."""
    name = metric.rpartition('/')[2]
    scale = 100 if 'mAP' in name or name.startswith('AP') else 1
    return scale * np.asarray(values, dtype=float)


def smoothness(values, less_is_better=False):
    """How steady a curve is, behind the first fifth of its points.

    Args:
        values (sequence of float): by epoch.
        less_is_better (bool)
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
        worse = np.diff(kept) * (1 if less_is_better else -1)
        found['worst_step'] = float(max(worse.max(), 0))
    return found


def summarize(run, metric):
    """Numbers of one curve.

    Args:
        run (dict): of :func:`read_curves`.
        metric (str)
    Returns:
        dict: ``last``, ``best``, ``best_step``, :func:`smoothness` and
        ``train``, the last training loss. Percent for shares.
    """
    steps, values = zip(*run['validation'][metric])
    values = in_percent(metric, values)
    less = is_loss(metric)
    ranked = np.where(np.isfinite(values), -values if less else values,
                      -math.inf)
    best = int(ranked.argmax())
    return dict(
        last=float(values[-1]), best=float(values[best]),
        best_step=steps[best], **smoothness(values, less),
        train=run['train'][-1][1] if run['train'] else None)


def loss_gap(run):
    """How many times as large as the training loss the test loss became.

    Returns:
        tuple | None: (ratio, step) of the largest; None without test loss.
    """
    train = dict(run['train'])
    ratios = [(loss / train[step], step)
              for step, loss in run['validation'].get(TEST_LOSS, ())
              if train.get(step, 0) > 0 and math.isfinite(loss)]
    return max(ratios, default=None)


def plot_losses(runs, metric):
    """Draw training loss (dashed) and a validation curve of each run.

    Args:
        runs (dict[str, dict]): of :func:`read_curves`.
        metric (str): validation curve, the test loss for the paper's figures.
    Returns:
        Figure: one panel if the metric is a loss, else two.
    """
    together = is_loss(metric)
    figure, axes = grid(1, 1 if together else 2, 6.4 if together else 4.6,
                        3.8)
    left, right = axes[0, 0], axes[0, -1]
    unit = next(iter(runs.values()))['unit']
    for i, (name, run) in enumerate(runs.items()):
        colour = COLOURS[i % len(COLOURS)]
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
        right.set_ylabel(metric)
    left.legend(frameon=False, fontsize=8)
    return figure


def _loss_limit(runs, metric):
    """Let single peaks leave the picture, not hide everything else."""
    values = np.concatenate(
        [[y for _, y in run['validation'][metric]] for run in runs.values()]
        + [[y for _, y in run['train']] for run in runs.values()])
    values = values[np.isfinite(values)]
    return 1.1 * np.quantile(values, 0.98) if len(values) else None
