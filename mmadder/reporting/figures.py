"""Figures of a detection run, as matplotlib figures.

matplotlib comes with mmdet; it is imported where it is used, so that the
package loads without a drawing backend.
"""
import json
from pathlib import Path

import cv2
import numpy as np

from mmadder.errors import InputError

INK, GRID, ACCENT, SECOND = '#1f2933', '#e4e7eb', '#0b7285', '#c2410c'
# Told apart also by those who see no red or no green; markers help.
COLOURS = (ACCENT, SECOND, '#7048e8', '#e8a100', '#1f2933', '#d6336c',
           '#37b24d', '#868e96')
MARKERS = 'osD^vPX*'
LEGEND_WIDTH = 110  # characters in a line
LINE = 14  # height in pixels of a text in a picture
SCORE_TO_DRAW = 0.5


def subplots(*args, **kwargs):
    """Return a figure in our style and its axes; arguments of both."""
    from matplotlib.figure import Figure
    figure = Figure(layout='constrained', dpi=120, **kwargs)
    axes = figure.subplots(*args)
    for axis in np.ravel(axes):
        _style(axis)
    return figure, axes


def _style(axis):
    axis.grid(color=GRID)
    axis.set_axisbelow(True)
    axis.spines[['top', 'right']].set_visible(False)
    axis.tick_params(colors=INK)


def run_folders(path):
    """Return the time-stamped folders of a training, oldest first.

    Args:
        path (str | Path): a work directory, or one such folder.
    """
    path = Path(path)
    folders = [path, *sorted(path.glob('*'))]
    return [folder for folder in folders
            if (folder / 'vis_data' / 'scalars.json').is_file()]


def read_scalars(path):
    """Read MMEngine's ``vis_data/scalars.json``, or several of a resumed run.

    Args:
        path (str | Path): the file, or a work directory that holds such
            files in its time-stamped folders, or one of these folders.

    Returns:
        tuple: training and validation records, lists of dicts in order of
        their ``step``; of steps that were run twice the later.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    files = [path] if path.is_file() else [
        folder / 'vis_data' / 'scalars.json' for folder in run_folders(path)]
    if not files:
        raise InputError(f'no vis_data/scalars.json in {path}')
    train, val = {}, {}
    for file in files:
        for line in file.read_text().splitlines():
            if not line.endswith('}'):
                continue  # being written, or cut off with its run
            record = json.loads(line)
            (train if 'loss' in record else val)[record['step']] = record
    return ([train[step] for step in sorted(train)],
            [val[step] for step in sorted(val)])


def plot_training(runs, metric):
    """Draw loss and validation metric over the training.

    Args:
        runs (dict): name to the result of :func:`read_scalars`.
        metric (str): key such as 'pascal_voc/mAP'.
    """
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.4))
    for (name, (train, val)), colour in zip(
            runs.items(), COLOURS):
        steps = [record['step'] for record in train]
        left.plot(steps, [record['loss'] for record in train], color=colour,
                  label=name, linewidth=1.3)
        right.plot([record['step'] for record in val],
                   [record.get(metric) for record in val], color=colour,
                   marker='o', markersize=4, label=name)
    left.set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    right.set(xlabel='epoch', ylabel=f'validation {metric}',
              ylim=(0, None))
    right.xaxis.get_major_locator().set_params(integer=True)
    if len(runs) > 1:
        left.legend(frameon=False)
    return figure


def plot_precision_recall(rows, columns=5):
    """Draw one precision-recall curve per class.

    Args:
        rows (list of dict): of :func:`average_precision`.
        columns (int): classes in a row of the figure.
    """
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = subplots(lines, columns,
                            figsize=(1.9 * columns, 2.1 * lines))
    axes = np.ravel(axes)
    for axis, row in zip(axes, rows):
        axis.plot(row['recall'], row['precision'], color=ACCENT)
        axis.fill_between(row['recall'], row['precision'], color=ACCENT,
                          alpha=0.12)
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=(0, 0.5, 1),
                 yticks=(0, 0.5, 1))
        axis.set_title(f'{row["name"]}   AP {row["ap"]:.3f}', fontsize=9)
    for axis in axes[len(rows):]:
        axis.set_axis_off()
    figure.supxlabel('recall', fontsize=9)
    figure.supylabel('precision', fontsize=9)
    return figure


def plot_confusion(matrix, classes):
    """Draw a confusion matrix in shares of each true class.

    Args:
        matrix (ndarray): of :func:`confusion_matrix`.
        classes (tuple of str)
    """
    side = min(2.2 + 0.42 * len(matrix), 14)
    figure, axis = subplots(figsize=(side, side))
    axis.grid(False)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap='GnBu', vmin=0, vmax=1)
    names = [*classes, 'none']
    axis.set_xticks(range(len(names)), names,
                    rotation=0 if max(map(len, names)) < 5 else 45)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel='predicted', ylabel='true')
    for (i, j), count in np.ndenumerate(matrix):
        if count:
            axis.text(j, i, count, ha='center', va='center', fontsize=7,
                      color='white' if shares[i, j] > 0.6 else INK)
    return figure


def draw_predictions(detections, indices, side=256,
                     score_thr=SCORE_TO_DRAW):
    """Draw annotations (left) beside predictions (right) of some pictures.

    Args:
        detections (Detections)
        indices (iterable of int): which pictures.
        side (int): height of a picture in the sheet in pixels.
        score_thr (float): least score of a drawn box.

    Returns:
        ndarray: (H, W, 3) uint8, BGR.

    Raises:
        InputError: a picture cannot be read.
    """
    tiles = []
    for i in indices:
        picture = cv2.imread(detections.paths[i])
        if picture is None:
            raise InputError(f'picture {detections.paths[i]} cannot be read')
        true, found = detections.annotations[i], detections.predictions[i]
        kept = found['scores'] >= score_thr
        names = detections.classes
        tiles.append(np.hstack([
            _draw_boxes(picture, side, true['bboxes'],
                        [names[label] for label in true['labels']],
                        (255, 255, 255)),
            _draw_boxes(picture, side, found['bboxes'][kept],
                        [f'{names[label]} {score:.2f}' for label, score in
                         zip(found['labels'][kept], found['scores'][kept])],
                        (80, 220, 120))]))
    return tile(tiles, columns=2)


def _draw_boxes(picture, side, boxes, texts, colour):
    """Draw boxes, then their texts inside the upper left corners.

    The text of a small box stands above it.

    Args:
        boxes (ndarray): (N, 4) by falling importance, drawn last to first.
    """
    scale = side / picture.shape[0]
    canvas = cv2.resize(picture, None, fx=scale, fy=scale,
                        interpolation=cv2.INTER_CUBIC)
    corners = np.rint(np.asarray(boxes).reshape(-1, 4) * scale).astype(int)
    for x1, y1, x2, y2 in corners[::-1].tolist():
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    for (x1, y1, _, y2), text in reversed(list(zip(corners.tolist(), texts))):
        small = y2 - y1 < 2 * LINE
        _write(canvas, x1, y1 - LINE if small else y1, text, colour)
    return canvas


def _write(canvas, x, y, text, colour):
    """Write on a dark ground, moved into the picture where it sticks out."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.36
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    x = max(min(x, canvas.shape[1] - width - 4), 0)
    y = max(min(y, canvas.shape[0] - LINE), 0)
    ground = canvas[y:y + LINE, x:x + width + 4]
    ground[:] = ground // 4
    cv2.putText(canvas, text, (x + 2, y + LINE - 4), font, size, colour, 1,
                cv2.LINE_AA)


def tile(pictures, columns, gap=8):
    """Put pictures on a white sheet, row by row.

    Args:
        pictures (list of ndarray): (H, W, 3) uint8 each.
        columns (int): pictures in a row.
        gap (int): pixels between them.
    """
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + gap) - gap,
                     columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        sheet[y:y + picture.shape[0], x:x + picture.shape[1]] = picture
    return sheet


def plot_comparison(result):
    """Draw loss, validation metric and, if known, AP of each class.

    Args:
        result (dict): of :func:`mmadder.runs.comparison.compare`.
    """
    from matplotlib.figure import Figure
    runs, styles = result['runs'], list(zip(COLOURS, MARKERS))
    classes = list(dict.fromkeys(
        name for run in runs.values() for name in run['class_ap']))
    rows = [['loss', 'validation'], ['classes', 'classes']]
    heights = [3.8, 2.8]
    if not classes:
        rows, heights = rows[:1], heights[:1]
    figure = Figure(layout='constrained', dpi=120,
                    figsize=(9.5, sum(heights)))
    axes = figure.subplot_mosaic(rows, height_ratios=heights)
    for axis in axes.values():
        _style(axis)
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
