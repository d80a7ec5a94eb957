"""One HTML page about a detection run."""
import html
import json
import platform
from pathlib import Path

import cv2
import mmcv
import mmdet
import mmengine
import mmpretrain
import numpy as np
import torch

from mmadder.errors import InputError
from mmadder.reporting.figures import (
    SCORE_TO_DRAW,
    draw_predictions,
    plot_confusion,
    plot_precision_recall,
    plot_training,
)
from mmadder.runs.run import choose_metric
from mmadder.version import __version__

from .detections import average_precision, confusion_matrix

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
MAX_CLASSES = 100  # each has a curve of its own


def write_report(out, title, detections, runs, metric=None, facts=(),
                 commands=(), split='test'):
    """Write ``index.html``, its pictures and ``summary.json`` into a folder.

    Args:
        out (str | Path): folder, made if needed.
        title (str)
        detections (Detections): of the test set.
        runs (dict): name to records of ``read_scalars``, for the curves;
            none, no curves.
        metric (str, optional): their validation metric, found if not given.
        facts (iterable): (name, value) pairs for the table of settings.
        commands (iterable of str): what made the run.
        split (str): what the pictures are: 'test', 'validation'.

    Returns:
        tuple: path of the page, and the dict in ``summary.json``: ``mAP``,
        ``eval_mode``, ``classes`` with ``ap`` and ``objects`` of each.

    Raises:
        InputError: a picture cannot be read, there are more than 100 classes,
            or the runs have no common validation metric.
    """
    if len(detections.classes) > MAX_CLASSES:
        raise InputError(f'{len(detections.classes)} classes are too many for '
                         f'the figures of a report, at most {MAX_CLASSES}')
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    mean, rows = average_precision(detections)
    area, _ = average_precision(detections, eval_mode='area')
    figures = dict(
        precision_recall=plot_precision_recall(rows),
        confusion=plot_confusion(
            confusion_matrix(detections, SCORE_TO_DRAW),
            detections.classes))
    if runs:
        metric = metric or choose_metric(
            {name: val for name, (_, val) in runs.items()})
        figures['training'] = plot_training(runs, metric)
    for name, figure in figures.items():
        figure.savefig(out / f'{name}.png')
    cv2.imwrite(str(out / 'predictions.png'),
                draw_predictions(detections, _samples(len(detections.paths))))
    page = out / 'index.html'
    objects = sum(row['objects'] for row in rows)
    headline = (
        f'<span class="figure">{mean:.3f}</span> mAP (VOC, IoU 0.5, 11-point; '
        f'area {area:.3f}) on {len(detections.paths)} {split} pictures with '
        f'{objects} objects')
    page.write_text(
        _page(title, headline, _sections(rows, runs, split, facts, commands)),
        encoding='utf-8')
    summary = dict(
        mAP=mean, mAP_area=area, iou_thr=0.5, eval_mode='11points',
        split=split, pictures=len(detections.paths),
        classes={row['name']: dict(ap=row['ap'], objects=row['objects'])
                 for row in rows})
    (out / 'summary.json').write_text(json.dumps(summary, indent=1))
    return page, summary


def run_facts(config):
    """Settings and versions for the report.

    Args:
        config (Config): of a detector.
    Returns:
        list: (name, value) pairs of what the config says.
    """
    model = config.model
    backbone, neck = model.get('backbone', {}), model.get('neck')
    adder = backbone.get('conv_cfg', 'class default')
    optimizer = config.get('optim_wrapper', {}).get('optimizer', {})
    loader = config.get('train_dataloader') or {}
    versions = ', '.join(
        f'{package.__name__} {package.__version__}'
        for package in (torch, mmcv, mmengine, mmdet, mmpretrain))
    facts = [
        ('detector', model.type),
        ('backbone', f'{backbone.get("type")}, {adder}'),
        ('neck', neck and neck.get('type')),
        ('optimizer', dict(optimizer)),
        ('epochs', (config.get('train_cfg') or {}).get('max_epochs')),
        ('batch', loader.get('batch_size')),
        ('seed', config.get('randomness', {}).get('seed')),
        ('versions', f'Python {platform.python_version()}, mmadder '
         f'{__version__}, {versions}')]
    return [(name, value) for name, value in facts if value is not None]


def _samples(count):
    """Pictures spread over the whole set, so that nobody picks the best."""
    return np.unique(np.linspace(0, count - 1, SAMPLES).astype(int))


def _table(head, rows):
    cells = ''.join(f'<th>{html.escape(name)}</th>' for name in head)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(str(cell))}</td>'
                         for cell in row) + '</tr>' for row in rows)
    return f'<table><tr>{cells}</tr>{body}</table>'


def _sections(rows, runs, split, facts, commands):
    """Return (heading, HTML) pairs."""
    classes = _table(
        ('class', 'AP', 'objects', 'detections'),
        [(row['name'], f'{row["ap"]:.3f}', row['objects'],
          row['detections']) for row in rows])
    sections = [
        ('Per class', classes + '<img src="precision_recall.png" '
         'alt="precision-recall curve of each class">')]
    if runs:
        sections.append(('Training', '<img src="training.png" '
                         'alt="loss and mAP curves">'))
    sections += [
        ('What it takes for what',
         f'<p class="note">Boxes that score at least {SCORE_TO_DRAW}, matched '
         'at IoU 0.5; row and column <i>none</i> are false boxes and missed '
         'objects.</p><img src="confusion.png" alt="confusion matrix">'),
        ('Predictions', '<p class="note">Annotations left, predictions '
         f'that score at least {SCORE_TO_DRAW} right; {split} pictures at '
         'equal distances, not picked.</p><img src="predictions.png" '
         'alt="annotated pictures">'),
        ('Settings', _table(('', ''), facts))]
    if commands:
        text = html.escape('\n'.join(commands))
        sections.append(('Commands', f'<pre>{text}</pre>'))
    return sections


def _page(title, headline, sections):
    body = ''.join(f'<h2>{name}</h2>{content}' for name, content in sections)
    return (f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f'<title>{html.escape(title)}</title><style>{STYLE}</style>'
            f'<h1>{html.escape(title)}</h1><p>{headline}</p>{body}</html>\n')
