"""The page about a detection run."""
import json
import re

import cv2
import numpy as np
import pytest
from boxes import annotate, detections, predict
from mmengine.config import Config
from recordings import write_scalars

from mmadder.analysis import run_facts, write_report
from mmadder.errors import InputError
from mmadder.runs.scalars import read_scalars


@pytest.fixture
def run(tmp_path):
    """Detections of a picture, and a work directory with curves."""
    write_scalars(tmp_path / 'run' / '1', (1, 2), metric='pascal_voc/mAP')
    path = str(tmp_path / 'picture.jpg')
    cv2.imwrite(path, np.full((64, 64, 3), 90, np.uint8))
    found = detections([predict([0, 1], [.9, .8])], [annotate([0, 0])])
    found.paths = [path]
    return found, tmp_path / 'run'


def test_report_is_one_page_with_its_figures(run, tmp_path):
    found, folder = run
    page, figures = write_report(
        tmp_path / 'report', 'A <title>', found,
        {'run': read_scalars(folder)}, facts=[('seed', 0)],
        commands=['python tools/train.py a && b'])
    text = page.read_text()
    # One of two objects: recall .5 at precision 1, six of eleven points.
    assert figures['mAP'] == pytest.approx(6 / 11)
    assert '0.545' in text and 'A &lt;title&gt;' in text
    assert 'a &amp;&amp; b' in text
    assert not re.search(r'https?://', text)
    for name in re.findall(r'src="([^"]+)"', text):
        picture = cv2.imread(str(page.parent / name))
        assert picture.std() > 5, f'{name} is blank'
    assert len(re.findall('src=', text)) == 4


def test_summary_and_files(run, tmp_path):
    found, _ = run
    out = tmp_path / 'report'
    page, summary = write_report(out, 'title', found, {}, split='validation')
    assert json.loads((out / 'summary.json').read_text()) == summary
    assert {path.name for path in out.iterdir()} == {
        'index.html', 'summary.json', 'precision_recall.png',
        'confusion.png', 'predictions.png'}
    text = page.read_text()
    assert 'on 1 validation pictures with 2 objects' in text
    assert 'training.png' not in text and 'Commands' not in text


def test_runs_that_do_not_fit_leave_no_report(run, tmp_path):
    found, folder = run
    out, scalars = tmp_path / 'report', read_scalars(folder)
    for runs, metric, message in (
            (dict.fromkeys('abcdefghi', scalars), None, '9 runs are too'),
            (dict(a=scalars), 'x', "not every run has the metric 'x'")):
        with pytest.raises(InputError, match=message):
            write_report(out, 'title', found, runs, metric)
    found.classes = ('x', ) * 101
    with pytest.raises(InputError, match='101 classes are too many'):
        write_report(out, 'title', found, {})
    assert not out.exists()


def test_facts_of_a_config():
    facts = dict(run_facts(Config(dict(
        model=dict(type='FasterRCNN', backbone=dict(
            type='AdderResNet', conv_cfg=dict(type='AdderConv2d'))),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        train_cfg=dict(max_epochs=3), randomness=dict(seed=0)))))
    assert facts['detector'] == 'FasterRCNN' and facts['seed'] == 0
    assert facts['backbone'] == "AdderResNet, {'type': 'AdderConv2d'}"
    assert 'neck' not in facts and 'mmadder ' in facts['versions']
