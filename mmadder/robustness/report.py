"""Tables and figures of robustness runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmadder.errors import InputError
from mmadder.files import write_text
from mmadder.reporting import tables
from mmadder.reporting.figures import colours_of, save_figure, subplots

from .columns import table_columns
from .results import DATA_HINT, read_results, sweep_points

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure

# The paper's names of the modes, and the one that is not the paper's.
SUFFIX = dict(eval='', R='-R', r='-r', max='-max')
LINES = dict(eval=':', R='-', r='--', max='-.')
TABLES = dict(table1=('eval', 'R'), table3=('r', 'R'))  # the paper's


def markdown_table(runs: Sequence[dict], modes: Sequence[str] | None = None,
                   columns: Sequence[str] | None = None) -> str:
    """Write the figures of one or more networks as Markdown.

    Args:
        runs: results with a 'name' among their settings, all of classifiers
            (accuracy in percent) or all of detectors (mAP from 0 to 1).
        modes: rows, mode by mode; default: all, network by network.
        columns: labels; default: all, as they first appear, without those of
            sweeps.
    Returns:
        One row per network and mode. A number in brackets is measured on
        fewer images than others of the table.
    """
    rows = [(run, mode) for run in runs for mode in run['rows']] \
        if modes is None else [(run, mode) for mode in modes for run in runs]
    rows = [(run['settings']['name'] + SUFFIX[mode], metric_of(run),
             {label: entry for label, entry in
              run['rows'].get(mode, {}).items()
              if not entry['column']['note']
              and (columns is None or label in columns)})
            for run, mode in rows]
    rows = [row for row in rows if row[-1]]
    labels = list(dict.fromkeys(
        label for *_, row in rows for label in row))
    most = max((entry['images'] for *_, row in rows
                for entry in row.values()), default=0)
    return tables.markdown_table(
        ('network', *map(_heading(rows), labels)),
        [(name, *(_cell(row.get(label), metric, most) for label in labels))
         for name, metric, row in rows])


def corruption_table(runs: Sequence[dict]) -> str:
    """Write accuracies under common corruptions as Markdown, in percent.

    Args:
        runs: results of classifiers.
    Returns:
        One row per corruption and severity, above it clean images, the same
        ones, below it the mean over all corruptions, and a column per
        network and mode; empty if there are none.
    """
    columns = {run['settings']['name'] + SUFFIX[mode]: _corrupted(row)
               for run in runs for mode, row in run['rows'].items()}
    columns = {name: entries for name, entries in columns.items()
               if entries}
    labels = list(dict.fromkeys(
        label for entries in columns.values() for label in entries))
    most = max((entry['images'] for entries in columns.values()
                for entry in entries.values()), default=0)
    rows = [(label, *(_cell(entries.get(label), 'accuracy', most)
                      for entries in columns.values())) for label in labels]
    means = [_mean([entry['accuracy'] for label, entry in entries.items()
                    if label != 'Clean']) for entries in columns.values()]
    return tables.markdown_table(('', *columns), [
        *rows, ('mean of the corruptions', *means)]) if columns else ''


def _corrupted(row):
    """Entries of corruptions, behind that of the same images, clean."""
    entries = {label: entry for label, entry in row.items()
               if entry['column']['note'].startswith('severity')}
    if not entries or 'Clean' not in row:
        return entries
    batches = max(len(entry['correct']) for entry in entries.values())
    right = ''.join(row['Clean']['correct'][:batches])
    return dict(Clean=dict(images=len(right), accuracy=right.count('1')
                           / len(right)), **entries)


def _mean(values):
    return f'{100 * sum(values) / len(values):.1f}'


def metric_of(run: dict) -> str:
    """Return 'accuracy' of a classifier's run, 'mAP' of a detector's."""
    return run['settings'].get('metric', 'accuracy')


def _heading(rows):
    """Column names; one that left its ball shows how far."""
    def heading(label):
        entries = [row[label] for *_, row in rows if label in row]
        attack = entries[0]['column']['attack']
        if not attack or attack['name'] != 'LegacyRFGSM':
            return label
        change = max(entry['max_perturbation'] for entry in entries)
        return f'{label} (moves pixels by {change * 255:.0f}/255)'
    return heading


def _cell(entry, metric, most):
    if entry is None:
        return ''
    value = entry[metric]
    text = f'{value:.3f}' if metric == 'mAP' else f'{100 * value:.1f}'
    return text if entry['images'] == most else f'({text})'


def sweep_curves(runs: Sequence[dict],
                 note: str) -> dict[tuple[str, str], list]:
    """Collect the curves of a sweep.

    Args:
        runs: results.
        note: 'eps' or 'steps'.
    Returns:
        Network and mode to (eps or steps, accuracy or mAP) pairs, sorted.
    """
    curves = {(run['settings']['name'], mode): sweep_points(
        row, note, metric_of(run))
        for run in runs for mode, row in run['rows'].items()}
    return {key: points for key, points in curves.items() if points}


def plot_sweep(curves: dict[tuple[str, str], list], note: str,
               metric: str = 'accuracy') -> 'Figure':
    """Draw the curves of :func:`sweep_curves`; returns the figure."""
    figure, axis = subplots(figsize=(7, 3.8))
    colours = colours_of(
        dict.fromkeys(name for name, _ in curves), 'networks')
    scale = 100 if metric == 'accuracy' else 1
    for (name, mode), points in curves.items():
        axis.plot(*zip(*[(x, scale * y) for x, y in points]), marker='o',
                  markersize=3.5, linewidth=1.3, linestyle=LINES[mode],
                  label=name + SUFFIX[mode],
                  color=colours[name])
    axis.set(xlabel='eps of PGD, step eps/7' if note == 'eps'
             else 'steps of PGD', ylim=(0, None),
             ylabel='mAP' if metric == 'mAP' else 'accuracy in percent')
    figure.legend(frameon=False, loc='outside right upper', fontsize=8)
    return figure


def plot_features(runs: Sequence[dict]) -> 'Figure':
    """Draw 'spread' of :func:`.features.norm_inputs` along the depth.

    Args:
        runs: with 'features'; one line per mode, under attack.
    """
    figure, axis = subplots(figsize=(7, 3.8))
    colours = colours_of(
        (run['settings']['name'] for run in runs), 'networks')
    for run, colour in zip(runs, colours.values()):
        for mode, trace in run['features'].items():
            label, layers = list(trace.items())[-1]
            axis.semilogy(
                [layer['spread'] for layer in layers], marker='o',
                markersize=2.5, linewidth=1.3, linestyle=LINES[mode],
                color=colour, label=run['settings']['name'] + SUFFIX[mode])
    axis.set(xlabel='batch norm, from the first to the last',
             ylabel=f'deviation under {label} / tracked deviation')
    figure.legend(frameon=False, loc='outside right upper', fontsize=8)
    return figure


def write_merged(paths: Sequence[str | Path],
                 out: str | Path) -> tuple[str, list[Path]]:
    """Join several networks into tables and the figures of the sweeps.

    Args:
        paths: files of tools/robustness.py.
        out: folder to write to: of classifiers ``table.md``,
            the paper's ``table1.md`` and ``table3.md`` where there are such
            modes, ``eps.png`` and ``steps.png`` where there are such sweeps,
            ``corruptions.md`` where there are corruptions,
            ``features.png``, how far features leave what was tracked;
            of detectors ``table.md`` and the figures, as
            ``detection_table.md`` and so on.
    Returns:
        The tables, and what was written.
    Raises:
        InputError: a file is no result, or the runs differ in their images,
            batches or attacks, or share a name.
    """
    runs = [read_results(path) for path in paths]
    groups = {}
    for run in runs:
        groups.setdefault(metric_of(run), []).append(run)
    for group in groups.values():
        _require_alike(group)
    out = Path(out)
    texts, written = [], []
    for metric, group in groups.items():
        texts.append(markdown_table(group))
        written += _write_group(group, metric, texts[-1], out)
    return '\n\n'.join(texts), written


def _write_group(runs, metric, table, out):
    prefix = 'detection_' if metric == 'mAP' else ''
    texts = dict(table=table)
    if metric == 'accuracy':
        labels = [column.label for column in table_columns()]
        texts.update((name, markdown_table(runs, modes, labels))
                     for name, modes in TABLES.items()
                     if any(set(modes) <= set(run['rows']) for run in runs))
        if corruptions := corruption_table(runs):
            texts.update(corruptions=corruptions)
    written = []
    for name, text in texts.items():
        written.append(out / f'{prefix}{name}.md')
        write_text(written[-1], text + '\n')
    for note in ('eps', 'steps'):
        curves = sweep_curves(runs, note)
        if curves:
            written.append(out / f'{prefix}{note}.png')
            save_figure(plot_sweep(curves, note, metric), written[-1])
    traced = [run for run in runs if run.get('features')]
    if traced:
        written.append(out / f'{prefix}features.png')
        save_figure(plot_features(traced), written[-1])
    return written


def _require_alike(runs):
    """Raise InputError unless figures of the runs compare."""
    for key in ('data', 'batch_size', 'include_logit_bn', 'seed'):
        values = {run['settings'].get(key) for run in runs}
        if len(values) > 1:
            hint = f'; {DATA_HINT}' if key == 'data' else ''
            raise InputError('the runs cannot stand in one table, their '
                             f'{key} differs: {sorted(map(str, values))}'
                             f'{hint}')
    names = [run['settings'].get('name') for run in runs]
    if None in names:
        raise InputError('a run has no name for its network; give it one in '
                         'its file, under settings')
    if len(set(names)) < len(names):
        raise InputError(f'two runs have the same name, in {names}; change '
                         'it in one file, under settings')
    attacks = {}
    for run in runs:
        for row in run['rows'].values():
            for label, entry in row.items():
                attack = entry['column']['attack']
                if attacks.setdefault(label, attack) != attack:
                    raise InputError(
                        f'{label} is another attack in '
                        f'{run["settings"]["name"]}: {attack}, elsewhere '
                        f'{attacks[label]}')
