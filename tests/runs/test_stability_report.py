"""The page about stability: whole, escaped, and in one file."""
import base64
import re

import cv2
import numpy as np
import pytest
from recordings import write_records, write_run, write_scalars

from mmadder.errors import InputError
from mmadder.runs.stability_report import write_stability_report

LAYER = 'backbone.layer1.0.conv2'


def test_layers_that_broke_are_named(tmp_path):
    def change(epoch, entries):
        if epoch >= 3:
            entries[LAYER]['feature_mean'] = None

    folder = tmp_path / '1'
    write_records(folder, range(1, 6), change=change)
    write_scalars(folder, range(1, 6))
    page, found = write_stability_report(tmp_path / 'out', dict(a=tmp_path))
    assert found['runs']['a']['not_finite'] == {LAYER: 3}
    text = page.read_text()
    assert f'first {LAYER} at 3' in text
    assert f'Not finite: {LAYER} (from 3)' in text


def test_report_is_one_file(runs, tmp_path):
    runs['<b> & no recording'] = tmp_path / 'bare'
    write_scalars(tmp_path / 'bare' / '1', range(1, 8), values=[
        60., 70, 75, 78, 88, 70, 92])
    page, found = write_stability_report(tmp_path / 'out', runs)
    text = page.read_text()
    assert page == tmp_path / 'out' / 'index.html'
    assert list(tmp_path.glob('out/*')) == [page]
    assert not re.search(r'https?:|<script|<link|url\(', text)
    assert '&lt;b&gt; &amp; no recording' in text and '<b>' not in text
    assert 'Layers were not recorded' in text or \
        'layers were not recorded' in text
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(pictures) == text.count('<img ') == 2 + 3 * 2 + 2
    for picture in pictures:
        data = np.frombuffer(base64.b64decode(picture), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).std() > 5
    assert found['metric'] == 'accuracy/top1'
    assert found['runs']['jumpy']['worst']['filter_var'].startswith('backb')


def test_report_of_one_layer(runs, tmp_path):
    page, _ = write_stability_report(
        tmp_path / 'a.html', runs, layer='neck.fpn_convs.0.conv')
    assert 'feature distributions of jumpy: neck.fpn_convs.0.conv' in \
        page.read_text()
    with pytest.raises(InputError, match='did you mean neck.fpn_convs.0'):
        write_stability_report(tmp_path / 'b.html', runs,
                               layer='neck.fpn_conv.0.conv')
    assert not (tmp_path / 'b.html').exists()


def test_runs_without_a_recording(tmp_path):
    write_scalars(tmp_path / '1', range(1, 8))
    page, _ = write_stability_report(tmp_path / 'a.html', dict(a=tmp_path))
    text = page.read_text()
    assert 'No run was recorded: train with --record' in text
    assert text.count('<img ') == 2 and 'Layers that change' not in text
    with pytest.raises(InputError, match='so there is no layer x'):
        write_stability_report(page, dict(a=tmp_path), layer='x')
    assert page.read_text() == text


def test_runs_of_different_lengths_and_too_many(tmp_path):
    runs = {name: write_run(tmp_path / name, epochs)
            for name, epochs in (('a', 6), ('b', 7))}
    page, _ = write_stability_report(tmp_path / 'a.html', runs)
    assert 'last validation at:\na 6, b 7.' in page.read_text()
    many = dict.fromkeys('abcdefghi', runs['a'])
    with pytest.raises(InputError, match='9 runs are too many'):
        write_stability_report(tmp_path / 'b.html', many)
    assert not (tmp_path / 'b.html').exists()
