"""Tables and figures of robustness runs."""

import json
from pathlib import Path

from mmadder.analysis.plots import INK, subplots
from mmadder.errors import InputError

COLOURS = ('#0b7285', '#c2410c', '#7048e8', '#2b8a3e', '#a61e4d', INK)
SUFFIX = dict(eval='', R='-R', r='-r')  # the paper's names of the modes


def read_results(path):
    """Read a file of :class:`mmadder.robustness.Evaluation`.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        results = json.loads(Path(path).read_text())
        if 'rows' in results and 'name' in results['settings']:
            return results
    except FileNotFoundError as error:
        raise InputError(f'{path} does not exist') from error
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f'{path} is no result of tools/robustness.py')


def markdown_table(runs):
    """Write the accuracies of one or more networks as Markdown.

    Args:
        runs (list[dict]): of :func:`read_results`.
    Returns:
        str: one row per network and mode, percent; columns as they first
        appear, without those of sweeps. A number in brackets is measured on
        fewer images than the row's first one.
    """
    rows = [(run['settings']['name'] + SUFFIX[mode],
             {label: entry for label, entry in row.items()
              if not entry['column']['note']})
            for run in runs for mode, row in run['rows'].items()]
    rows = [(name, row) for name, row in rows if row]
    labels = list(dict.fromkeys(label for _, row in rows for label in row))
    lines = ['| network | ' + ' | '.join(map(_heading(rows), labels)) + ' |',
             '|-' * (len(labels) + 1) + '|']
    for name, row in rows:
        most = max(entry['images'] for entry in row.values())
        cells = [_cell(row.get(label), most) for label in labels]
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _heading(rows):
    """Column names; one that left its ball shows how far."""
    def heading(label):
        entries = [row[label] for _, row in rows if label in row]
        attack = entries[0]['column']['attack']
        if not attack or attack['name'] != 'LegacyRFGSM':
            return label
        change = max(entry['max_perturbation'] for entry in entries)
        return f'{label} (moves pixels by {change * 255:.0f}/255)'
    return heading


def _cell(entry, most):
    if entry is None:
        return ''
    text = f'{100 * entry["accuracy"]:.1f}'
    return text if entry['images'] == most else f'({text})'


def sweep_curves(runs, note):
    """Collect the curves of a sweep.

    Args:
        runs (list[dict])
        note (str): 'eps' or 'steps'.
    Returns:
        dict[str, list]: network to (eps or steps, accuracy) pairs, sorted.
    """
    curves = {}
    for run in runs:
        for mode, row in run['rows'].items():
            points = [(entry['column']['attack'][note], entry['accuracy'])
                      for entry in row.values()
                      if entry['column']['note'].startswith(note)]
            if points:
                name = run['settings']['name'] + SUFFIX[mode]
                curves[name] = sorted(points)
    return curves


def plot_sweep(curves, note):
    """Draw the curves of :func:`sweep_curves`; returns the figure."""
    figure, axis = subplots(figsize=(5.4, 3.6))
    for i, (name, points) in enumerate(curves.items()):
        axis.plot(*zip(*[(x, 100 * y) for x, y in points]), marker='o',
                  markersize=4, linewidth=1.3, label=name,
                  color=COLOURS[i % len(COLOURS)])
    axis.set(xlabel='eps of PGD, step eps/7' if note == 'eps'
             else 'steps of PGD', ylabel='accuracy in percent',
             ylim=(0, None))
    axis.legend(frameon=False)
    return figure


def write_merged(paths, out):
    """Join several networks into a table and the figures of the sweeps.

    Args:
        paths (list[str]): files of tools/robustness.py.
        out (str | Path): folder to write ``table.md``, ``eps.png`` and
            ``steps.png`` to, the latter where there are such sweeps.
    Returns:
        (str, list[Path]): the table, and what was written.
    Raises:
        InputError: a file is no result, or the runs differ in their images
            or batches.
    """
    runs = [read_results(path) for path in paths]
    for key in ('data', 'batch_size', 'include_logit_bn'):
        values = {run['settings'].get(key) for run in runs}
        if len(values) > 1:
            raise InputError(f'the runs cannot stand in one table, their '
                             f'{key} differs: {sorted(map(str, values))}')
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table = markdown_table(runs)
    written = [out / 'table.md']
    written[0].write_text(table + '\n')
    for note in ('eps', 'steps'):
        curves = sweep_curves(runs, note)
        if curves:
            written.append(out / f'{note}.png')
            plot_sweep(curves, note).savefig(written[-1])
    return table, written
