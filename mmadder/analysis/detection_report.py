"""One HTML page about a detection run."""
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmdet
import mmengine
import mmpretrain
import numpy as np
import torch
from mmengine.config import Config

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.files import whole_file, write_json
from mmadder.reporting.figures import save_figure
from mmadder.reporting.pages import write_page
from mmadder.runs.metrics import choose_metric, metrics_of
from mmadder.runs.run_pictures import plot_training
from mmadder.runs.scalars import Records
from mmadder.version import __version__

from .detection_pictures import (
    SCORE_TO_DRAW,
    draw_predictions,
    plot_confusion,
    plot_precision_recall,
)
from .detections import Detections, average_precision, confusion_matrix

TEMPLATE = '''\
{% extends 'page.html' %}
{% from 'parts.html' import picture, table %}
{% block content %}
<p><span class="figure">{{ '%.3f' % mAP }}</span> mAP (VOC, IoU 0.5, 11-point;
area {{ '%.3f' % area }})
on {{ pictures }} {{ split }} pictures with {{ objects }} objects</p>
<h2>Per class</h2>
{{ table(('class', 'AP', 'objects', 'detections'), rows) }}
{{ picture('precision_recall.png', 'precision-recall curve of each class') }}
{% if trained %}
<h2>Training</h2>
{{ picture('training.png', 'loss and mAP curves') }}
{% endif %}
<h2>What it takes for what</h2>
<p class="note">Boxes that score at least {{ score }}, matched at IoU 0.5; row
and column <i>none</i> are false boxes and missed objects.</p>
{{ picture('confusion.png', 'confusion matrix') }}
<h2>Predictions</h2>
<p class="note">Annotations left, predictions that score at least {{ score }}
right; {{ split }} pictures at equal distances, not picked.</p>
{{ picture('predictions.png', 'annotated pictures') }}
<h2>Settings</h2>
{{ table((), facts, wide=false) }}
{% if commands %}
<h2>Commands</h2>
<pre>{{ commands | join('\n') }}</pre>
{% endif %}
{% endblock %}
'''
SAMPLES = 8
MAX_CLASSES = 100  # each has a curve of its own


def write_report(
        out: str | Path, title: str, detections: Detections,
        runs: Mapping[str, tuple[Records, Records]],
        metric: str | None = None, facts: Iterable[Sequence] = (),
        commands: Iterable[str] = (), split: str = 'test',
) -> tuple[Path, dict[str, Any]]:
    """Write ``index.html``, its pictures and ``summary.json`` into a folder.

    Args:
        out: folder, made if needed.
        title: of the page.
        detections: of the test set.
        runs: name to records of ``read_scalars``, for the curves; none, no
            curves.
        metric: their validation metric, found if not given.
        facts: (name, value) pairs for the table of settings.
        commands: what made the run.
        split: what the pictures are: 'test', 'validation'.
    Returns:
        path of the page, and the dict in ``summary.json``: ``mAP``,
        ``eval_mode``, ``classes`` with ``ap`` and ``objects`` of each.
    Raises:
        InputError: a picture cannot be read, there are more than 100 classes,
            or the runs have no common validation metric or are too many.
    """
    if len(detections.classes) > MAX_CLASSES:
        raise InputError(f'{len(detections.classes)} classes are too many for '
                         f'the figures of a report, at most {MAX_CLASSES}')
    out = Path(out)
    mean, rows = average_precision(detections)
    area, _ = average_precision(detections, eval_mode='area')
    figures = dict(
        precision_recall=plot_precision_recall(rows),
        confusion=plot_confusion(
            confusion_matrix(detections, SCORE_TO_DRAW),
            detections.classes))
    if runs:
        figures['training'] = plot_training(runs, choose_metric(
            {name: metrics_of(val) for name, (_, val) in runs.items()},
            metric))
    sheet = draw_predictions(detections, _samples(len(detections.paths)))
    for name, figure in figures.items():
        save_figure(figure, out / f'{name}.png')
    with whole_file(out / 'predictions.png') as partial:
        cv2.imwrite(str(partial), sheet)
    summary = dict(
        mAP=mean, mAP_area=area, iou_thr=0.5, eval_mode='11points',
        split=split, pictures=len(detections.paths),
        classes={row['name']: dict(ap=row['ap'], objects=row['objects'])
                 for row in rows})
    write_json(out / 'summary.json', summary)
    page = out / 'index.html'
    write_page(
        page, TEMPLATE, title=title, mAP=mean, area=area, split=split,
        pictures=len(detections.paths), score=SCORE_TO_DRAW,
        objects=sum(row['objects'] for row in rows), trained=bool(runs),
        rows=[(row['name'], f'{row["ap"]:.3f}', row['objects'],
               row['detections']) for row in rows],
        facts=list(facts), commands=list(commands))
    return page, summary


def run_facts(config: Config) -> list[tuple[str, Any]]:
    """Settings and versions for the report.

    Args:
        config: of a detector.
    Returns:
        (name, value) pairs of what the config says.
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
        ('detector', type_name(model)),
        ('backbone', f'{type_name(backbone)}, {adder}'),
        ('neck', type_name(neck) or None),
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
