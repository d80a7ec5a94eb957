"""Pictures of what a detector found: curves, confusions and boxes."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmadder.errors import InputError
from mmadder.reporting.figures import ACCENT, INK, subplots

from .detections import Detections

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE = 14  # height in pixels of a text in a picture
SCORE_TO_DRAW = 0.5


def plot_precision_recall(rows: Sequence[Mapping[str, Any]],
                          columns: int = 5) -> Figure:
    """Draw one precision-recall curve per class.

    Args:
        rows: of :func:`average_precision`.
        columns: classes in a row of the figure.
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


def plot_confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix in shares of each true class.

    Args:
        matrix: of :func:`confusion_matrix`.
        classes: names.
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


def draw_predictions(detections: Detections, indices: Iterable[int],
                     side: int = 256,
                     score_thr: float = SCORE_TO_DRAW) -> np.ndarray:
    """Draw annotations (left) beside predictions (right) of some pictures.

    Args:
        detections: of the test set.
        indices: which pictures.
        side: height of a picture in the sheet in pixels.
        score_thr: least score of a drawn box.
    Returns:
        (H, W, 3) uint8, BGR.
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
            draw_boxes(picture, side, true['bboxes'],
                       [names[label] for label in true['labels']],
                       (255, 255, 255)),
            draw_boxes(picture, side, found['bboxes'][kept],
                       [f'{names[label]} {score:.2f}' for label, score in
                        zip(found['labels'][kept], found['scores'][kept])],
                       (80, 220, 120))]))
    return tile(tiles, columns=2)


def draw_boxes(picture: np.ndarray, side: int, boxes: np.ndarray,
               texts: Sequence[str],
               colour: tuple[int, int, int]) -> np.ndarray:
    """Draw boxes, then their texts inside the upper left corners.

    The text of a small box stands above it.

    Args:
        picture: (H, W, 3) uint8, BGR.
        side: height of the result in pixels.
        boxes: (N, 4) by falling importance, drawn last to first.
        texts: one for each box.
        colour: BGR.
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


def tile(pictures: Sequence[np.ndarray], columns: int,
         gap: int = 8) -> np.ndarray:
    """Put pictures on a white sheet, row by row.

    Args:
        pictures: (H, W, 3) uint8 each.
        columns: pictures in a row.
        gap: pixels between them.
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
