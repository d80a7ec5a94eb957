"""Several trainings side by side: curves, final figures, stability."""
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmadder.errors import InputError
from mmadder.files import write_json, write_text
from mmadder.reporting.figures import colours_of, save_figure
from mmadder.reporting.tables import markdown_table
from mmadder.text import shorten

from .metrics import (
    PERCENT,
    best,
    choose_metric,
    is_loss,
    is_of_adders,
    metrics_of,
    worsening,
)
from .run import Run, read_run
from .run_pictures import plot_comparison

SMOOTHING = 25  # a moving average over one 25th of the training
FIGURES = ('final', 'best', 'mean_change', 'largest_drop', 'loss', 'minutes')
SEEDS = 'seeds of one configuration are one: NAME=DIR,DIR'


def write_comparison(out: str | Path,
                     groups: Mapping[str, Sequence[str | Path]],
                     metric: str | None = None) -> tuple[str, list[Path]]:
    """Write ``comparison.png``, ``comparison.md`` and ``comparison.json``.

    Args:
        out: folder, made if needed.
        groups: name to work directories, one for each seed.
        metric: validation metric, found if not given.
    Returns:
        the Markdown text, and the paths written.
    Raises:
        InputError: more groups than colours, a folder without run, no common
            metric, or other classes in one of them.
    """
    colours_of(groups, advice=SEEDS)  # before the runs are read
    result = compare({name: [read_run(folder) for folder in folders]
                      for name, folders in groups.items()}, metric)
    text = markdown(result)
    paths = [Path(out) / f'comparison.{suffix}'
             for suffix in ('png', 'md', 'json')]
    save_figure(plot_comparison(result), paths[0])
    write_text(paths[1], text)
    write_json(paths[2], result)
    return text, paths


def compare(groups: Mapping[str, Sequence[Run]],
            metric: str | None = None) -> dict[str, Any]:
    """Compute what figure and table show.

    Args:
        groups: name to runs, one for each seed.
        metric: validation metric, found if not given.
    Returns:
        dict: ``metric``, ``step`` ('epoch' or 'iteration'), ``notes`` (what
        makes the runs hard to compare) and ``runs``, for each name a dict
        of ``seeds`` (figures of each, see :func:`measure`), ``summary`` and
        ``class_ap`` (their mean and standard deviation, the latter None for
        one seed), ``loss`` and ``validation``: ``steps``, ``mean``, ``low``
        and ``high`` over the seeds.
    Raises:
        InputError: see :func:`write_comparison`.
    """
    runs = {(name, run.folder): run
            for name, seeds in groups.items() for run in seeds}
    metric = choose_metric({f'{name} ({folder})': metrics_of(run.val)
                            for (name, folder), run in runs.items()}, metric)
    _require_same_classes(runs)
    return dict(
        metric=metric, step=next(iter(runs.values())).step_name,
        runs={name: _summarize(seeds, metric)
              for name, seeds in groups.items()},
        notes=_notes(runs))


def measure(run: Run, metric: str) -> dict[str, Any]:
    """Return the figures of one run.

    Stability is that of the evaluations in the second half of the training:
    ``mean_change``, the mean absolute difference between one and the next,
    and ``largest_drop`` from one to the next (of a loss: its largest rise),
    0 if there is none. Both are None if the half has fewer than two
    evaluations. Evaluations of networks that are convolutions in part
    (AnnealingHook) count nowhere; figures that this leaves nothing for are
    None.

    Returns:
        dict: those, ``folder``, ``final`` and ``best`` metric, ``best_step``,
        ``evaluations``, ``loss`` (smoothed, at the end), ``minutes`` (wall
        time; None without log) and ``class_ap``.
    """
    half = run.val[len(run.val) // 2:]
    drops = worsening(
        metric, [record[metric] for record in half if is_of_adders(record)])
    counted = [record for record in run.val if is_of_adders(record)]
    values = [record[metric] for record in counted]
    top = best(metric, values) if values else None
    return dict(
        folder=run.folder, final=values[-1] if values else None,
        best=values[top] if values else None,
        best_step=counted[top]['step'] if values else None,
        evaluations=len(run.val),
        mean_change=float(np.abs(drops).mean()) if len(drops) else None,
        largest_drop=max(0., float(drops.max())) if len(drops) else None,
        loss=float(smooth([record['loss'] for record in run.train])[-1]),
        minutes=run.seconds / 60 or None,
        class_ap=run.class_ap(metric))


def smooth(values: Sequence[float], parts: int = SMOOTHING) -> np.ndarray:
    """Moving average over one ``parts``-th of the values, shorter at ends."""
    values = np.asarray(values, float)
    window = np.ones(2 * (len(values) // parts // 2) + 1)
    return (np.convolve(values, window, 'same')
            / np.convolve(np.ones_like(values), window, 'same'))


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table of :func:`compare` as Markdown, with its legend."""
    runs, metric = result['runs'], result['metric']
    drop = 'largest rise' if is_loss(metric) else 'largest drop'
    digits = dict.fromkeys(FIGURES, 2 if metric.startswith(PERCENT) else 3)
    digits.update(loss=3, minutes=1)
    parts = [markdown_table(
        ('run', 'seeds', 'final', 'best', 'mean change', drop,
         'loss at the end', 'minutes'),
        [(name, len(run['seeds']),
          *(_cell(run['summary'][key], digits[key]) for key in FIGURES))
         for name, run in runs.items()])]
    names = list(dict.fromkeys(
        key for run in runs.values() for key in run['class_ap']))
    if names:
        parts.append(markdown_table(
            ('AP after the last evaluation', *runs),
            [(key, *(_cell(run['class_ap'].get(key))
                     for run in runs.values())) for key in names]))
    legend = (f'Metric: {metric}. Mean change and {drop} are between one '
              'evaluation and the next, in the second half of the training. '
              'Minutes are wall time, validation included.')
    if max(len(run['seeds']) for run in runs.values()) > 1:
        legend += (' ± is the standard deviation over the seeds, as are the '
                   'bars of the figure; its bands reach from the lowest to '
                   'the highest seed.')
    notes = [f'Note: {note}.' for note in result['notes']]
    return '\n\n'.join([*parts, '\n'.join([legend, *notes])]) + '\n'


def _summarize(seeds, metric):
    figures = [measure(run, metric) for run in seeds]
    classes = figures[0]['class_ap']
    return dict(
        seeds=figures,
        summary={key: _mean([seed[key] for seed in figures])
                 for key in FIGURES},
        class_ap={name: _mean([seed['class_ap'].get(name)
                               for seed in figures]) for name in classes},
        loss=_curve([(run.train, smooth([r['loss'] for r in run.train]))
                     for run in seeds]),
        validation=_curve([(run.val, [r[metric] for r in run.val])
                           for run in seeds]))


def _mean(values):
    """Mean and sample deviation; None if a seed lacks the figure."""
    if any(value is None for value in values):
        return None
    deviation = np.std(values, ddof=1) if len(values) > 1 else None
    return dict(mean=float(np.mean(values)),
                std=None if deviation is None else float(deviation))


def _curve(seeds):
    """Join (records, values) of the seeds at their common steps."""
    curves = [{record['step']: value
               for record, value in zip(records, values)}
              for records, values in seeds]
    steps = [step for step in curves[0]
             if all(step in curve for curve in curves)]
    values = np.array([[curve[step] for step in steps] for curve in curves])
    return {'steps': steps, 'mean': values.mean(0).tolist(),
            'low': values.min(0).tolist(), 'high': values.max(0).tolist()}


def _require_same_classes(runs):
    known = {key: run.classes for key, run in runs.items() if run.classes}
    if len(set(known.values())) > 1:
        raise InputError('the runs have other classes:' + ''.join(
            f'\n  {name} ({folder}): {len(classes)}, {shorten(classes)}'
            for (name, folder), classes in known.items()))


def _notes(runs):
    ends = {run.val[-1]['step'] for run in runs.values()}
    notes = []
    if len(ends) > 1:
        notes.append('the last evaluations are of different steps, '
                     + ', '.join(f'{run.val[-1]["step"]} in {folder}'
                                 for (_, folder), run in runs.items()))
    mixed = [folder for (_, folder), run in runs.items()
             if not is_of_adders(run.val[-1])]
    if mixed:
        notes.append('still convolutions in part, so without final figures: '
                     + ', '.join(mixed))
    broken = [folder for (_, folder), run in runs.items()
              if not all(math.isfinite(r['loss']) for r in run.train)]
    if broken:
        notes.append('the loss is not finite in ' + ', '.join(broken))
    return notes


def _cell(figure, digits=3):
    if figure is None:
        return '-'
    text = f'{figure["mean"]:.{digits}f}'
    if figure['std'] is not None:
        text += f' ± {figure["std"]:.{digits}f}'
    return text
