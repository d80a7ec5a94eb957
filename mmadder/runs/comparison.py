"""Several trainings side by side: curves, final figures, stability."""
import json
import math
from pathlib import Path

import numpy as np

from mmadder.errors import InputError
from mmadder.reporting.figures import COLOURS, plot_comparison

from .run import choose_metric, read_run, require_metric

SMOOTHING = 25  # a moving average over one 25th of the training
FIGURES = ('final', 'best', 'mean_change', 'largest_drop', 'loss', 'minutes')
HEADER = ('final', 'best', 'mean change', 'largest drop', 'loss at the end',
          'minutes')


def write_comparison(out, groups, metric=None):
    """Write ``comparison.png``, ``comparison.md`` and ``comparison.json``.

    Args:
        out (str | Path): folder, made if needed.
        groups (dict): name to a list of work directories, one for each seed.
        metric (str, optional): validation metric, found if not given.
    Returns:
        tuple: the Markdown text, and the paths written.
    Raises:
        InputError: more groups than colours, a folder without run, no common
            metric, or other classes in one of them.
    """
    if len(groups) > len(COLOURS):
        raise InputError(f'{len(groups)} runs are too many for one figure, '
                         f'at most {len(COLOURS)} can be told apart; seeds '
                         'of one configuration are one: NAME=DIR,DIR')
    result = compare({name: [read_run(folder) for folder in folders]
                      for name, folders in groups.items()}, metric)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f'comparison.{suffix}' for suffix in ('png', 'md', 'json')]
    plot_comparison(result).savefig(paths[0])
    text = markdown(result)
    paths[1].write_text(text, encoding='utf-8')
    paths[2].write_text(json.dumps(result, indent=1))
    return text, paths


def compare(groups, metric=None):
    """Compute what figure and table show.

    Args:
        groups (dict): name to a list of Run, one for each seed.
        metric (str, optional): validation metric, higher is better.
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
    validations = {f'{name} ({folder})': run.val
                   for (name, folder), run in runs.items()}
    if metric is None:
        metric = choose_metric(validations)
    require_metric(validations, metric)
    _require_same_classes(runs)
    return dict(
        metric=metric, step=next(iter(runs.values())).step_name,
        runs={name: _summarize(seeds, metric)
              for name, seeds in groups.items()},
        notes=_notes(runs))


def measure(run, metric):
    """Return the figures of one run.

    Stability is that of the evaluations in the second half of the training:
    ``mean_change``, the mean absolute difference between one and the next,
    and ``largest_drop`` from one to the next, 0 if there is none. Both are
    None if the half has fewer than two evaluations.

    Args:
        run (Run)
        metric (str): higher is better.
    Returns:
        dict: those, ``folder``, ``final`` and ``best`` metric, ``best_step``,
        ``evaluations``, ``loss`` (smoothed, at the end), ``minutes`` (wall
        time; None without log) and ``class_ap``.
    """
    values = [record[metric] for record in run.val]
    changes = np.diff(values[len(values) // 2:])
    best = int(np.argmax(values))
    return dict(
        folder=run.folder, final=values[-1], best=values[best],
        best_step=run.val[best]['step'], evaluations=len(values),
        mean_change=float(np.abs(changes).mean()) if len(changes) else None,
        largest_drop=max(0., -float(changes.min())) if len(changes) else None,
        loss=float(smooth([record['loss'] for record in run.train])[-1]),
        minutes=run.seconds / 60 or None,
        class_ap=run.class_ap(metric))


def smooth(values, parts=SMOOTHING):
    """Moving average over one ``parts``-th of the values, shorter at ends."""
    values = np.asarray(values, float)
    window = np.ones(2 * (len(values) // parts // 2) + 1)
    return (np.convolve(values, window, 'same')
            / np.convolve(np.ones_like(values), window, 'same'))


def markdown(result):
    """Return the table of :func:`compare` as Markdown, with its legend."""
    runs = result['runs']
    seeds = max(len(run['seeds']) for run in runs.values())
    share = all(run['summary']['best']['mean'] <= 1 for run in runs.values())
    digits = dict.fromkeys(FIGURES, 3 if share else 2)  # else percent
    digits.update(loss=3, minutes=1)
    lines = _table(
        ('run', 'seeds', *HEADER),
        [(name, len(run['seeds']),
          *(_cell(run['summary'][key], digits[key]) for key in FIGURES))
         for name, run in runs.items()])
    names = list(dict.fromkeys(
        key for run in runs.values() for key in run['class_ap']))
    if names:
        lines += ['', *_table(
            ('AP after the last evaluation', *runs),
            [(key, *(_cell(run['class_ap'].get(key))
                     for run in runs.values())) for key in names])]
    lines += ['', f'Metric: {result["metric"]}. Mean change and largest drop '
              'are between one evaluation and the next, in the second half '
              'of the training. Minutes are wall time, validation included.']
    if seeds > 1:
        lines[-1] += (' ± is the standard deviation over the seeds, as are '
                      'the bars of the figure; its bands reach from the '
                      'lowest to the highest seed.')
    lines += [f'Note: {note}.' for note in result['notes']]
    return '\n'.join(lines) + '\n'


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
            f'\n  {name} ({folder}): {len(classes)}, '
            f'{", ".join(map(str, classes[:10]))}'
            + ', ...' * (len(classes) > 10)
            for (name, folder), classes in known.items()))


def _notes(runs):
    ends = {run.val[-1]['step'] for run in runs.values()}
    notes = []
    if len(ends) > 1:
        notes.append('the last evaluations are of different steps, '
                     + ', '.join(f'{run.val[-1]["step"]} in {folder}'
                                 for (_, folder), run in runs.items()))
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


def _table(head, rows):
    """Markdown, its columns aligned for reading on a terminal too."""
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['| ' + ' | '.join(
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths))) + ' |'
        for row in rows]
    rule = '|' + '|'.join(
        '-' * (width + 1) + ('-' if i == 0 else ':')
        for i, width in enumerate(widths)) + '|'
    return [lines[0], rule, *lines[1:]]
