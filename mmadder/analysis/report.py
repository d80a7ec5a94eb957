"""One HTML page about a detection run."""
import html
from pathlib import Path

import cv2
import numpy as np

from .detection import average_precision, confusion_matrix
from .plots import (SCORE_TO_DRAW, draw_predictions, plot_confusion,
                    plot_precision_recall, plot_training)

STYLE = '''
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto;
       max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem;
     margin-top: 2rem; border-bottom: 1px solid #e4e7eb; }
.figure { font-size: 2.6rem; font-weight: 650; color: #0b7285; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0;
     text-align: right; } td:first-child, th:first-child { text-align: left; }
tr { border-bottom: 1px solid #e4e7eb; } img { max-width: 100%; }
pre { background: #f5f7fa; padding: .8rem; overflow-x: auto; }
.note { color: #52606d; }
'''
SAMPLES = 8


def write_report(out, title, detections, runs, metric='pascal_voc/mAP',
                 facts=(), commands=()):
    """Write ``index.html`` and its pictures into a folder.

    Args:
        out (str | Path): folder, made if needed.
        title (str)
        detections (Detections): of the test set.
        runs (dict): name to records of ``read_scalars``, for the curves.
        metric (str): their validation metric.
        facts (iterable): (name, value) pairs for the table of settings.
        commands (iterable of str): what made the run.

    Returns:
        tuple: path of the page, and a dict of the figures in it: ``mAP``,
        ``eval_mode``, ``classes`` with ``ap`` and ``objects`` of each.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    mean, rows = average_precision(detections)
    area, _ = average_precision(detections, eval_mode='area')
    figures = dict(
        training=plot_training(runs, metric),
        precision_recall=plot_precision_recall(rows),
        confusion=plot_confusion(
            confusion_matrix(detections, SCORE_TO_DRAW),
            detections.classes))
    for name, figure in figures.items():
        figure.savefig(out / f'{name}.png')
    cv2.imwrite(str(out / 'predictions.png'),
                draw_predictions(detections, _samples(len(detections.paths))))
    page = out / 'index.html'
    page.write_text(_page(title, mean, area, rows, len(detections.paths),
                          facts, commands), encoding='utf-8')
    return page, dict(
        mAP=mean, mAP_area=area, iou_thr=0.5, eval_mode='11points',
        pictures=len(detections.paths),
        classes={row['name']: dict(ap=row['ap'], objects=row['objects'])
                 for row in rows})


def _samples(count):
    """Pictures spread over the whole set, so that nobody picks the best."""
    return np.unique(np.linspace(0, count - 1, SAMPLES).astype(int))


def _table(head, rows):
    cells = ''.join(f'<th>{html.escape(name)}</th>' for name in head)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(str(cell))}</td>'
                         for cell in row) + '</tr>' for row in rows)
    return f'<table><tr>{cells}</tr>{body}</table>'


def _page(title, mean, area, rows, pictures, facts, commands):
    objects = sum(row['objects'] for row in rows)
    classes = _table(
        ('class', 'AP', 'objects', 'detections'),
        [(row['name'], f'{row["ap"]:.3f}', row['objects'],
          row['detections']) for row in rows])
    sections = [
        ('Per class', classes + '<img src="precision_recall.png" '
         'alt="precision-recall curve of each class">'),
        ('Training', '<img src="training.png" alt="loss and mAP curves">'),
        ('What it takes for what',
         f'<p class="note">Boxes that score at least {SCORE_TO_DRAW}, matched '
         'at IoU 0.5; row and column <i>none</i> are false boxes and missed objects.</p>'
         '<img src="confusion.png" alt="confusion matrix">'),
        ('Predictions', f'<p class="note">Annotations left, predictions '
         f'that score at least {SCORE_TO_DRAW} right; test pictures at equal '
         'distances, not picked.</p><img src="predictions.png" '
         'alt="annotated pictures">'),
        ('Settings', _table(('', ''), facts)),
        ('Commands', f'<pre>{html.escape(chr(10).join(commands))}</pre>')]
    body = ''.join(f'<h2>{name}</h2>{content}' for name, content in sections)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f'<title>{html.escape(title)}</title><style>{STYLE}</style>'
            f'<h1>{html.escape(title)}</h1>'
            f'<p><span class="figure">{mean:.3f}</span> mAP (VOC, IoU 0.5, '
            f'11-point; area {area:.3f}) on {pictures} test pictures with '
            f'{objects} objects</p>{body}</html>\n')
