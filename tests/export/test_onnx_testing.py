"""ONNX files behind MMDetection's and MMPretrain's evaluators."""
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from mmadder.errors import InputError
from mmadder.export import OnnxPredictor
from mmadder.export.onnx_testing import boxes_of, picture_sizes
from mmadder.models import build_model

pytest.importorskip('onnxruntime')
from onnx_tools import write_file

PAGE = Path(__file__).parents[2] / 'docs' / 'export.md'
TEST = str(Path(__file__).parents[2] / 'tools' / 'test.py')


def test_the_evaluator_says_the_same(boxes_file, detector, digits,
                                     monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = detector[0]
    for name, file in ('onnx', boxes_file[0]), (
            'torch', folder / 'tiny.pth'):
        monkeypatch.setattr(sys, 'argv', [
            TEST, str(folder / 'tiny.py'), str(file), '--data-root',
            str(digits), '--work-dir', name, '--cfg-options',
            'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False'])
        runpy.run_path(TEST, run_name='__main__')
    onnx, torch_ = (json.loads(next(Path(name).glob('*/*.json')).read_text())
                    for name in ('onnx', 'torch'))
    assert onnx['pascal_voc/mAP'] == pytest.approx(
        torch_['pascal_voc/mAP'], abs=.001)


def test_the_documented_lines(boxes_file, digits, monkeypatch, tmp_path,
                              capsys):
    """They find what the evaluator is given."""
    out, cfg = boxes_file
    monkeypatch.chdir(tmp_path)
    shutil.copy(out, 'model.onnx')
    picture = cv2.imread(next((digits / 'VOC2007/JPEGImages').glob(
        'test_*.jpg')).as_posix())
    # As the config does it: 80x80, and padded by its mean, which is zero.
    picture = cv2.resize(picture, (80, 80))
    mean = np.float32(cfg.model.data_preprocessor.mean)[::-1].round()
    padded = np.full((96, 96, 3), mean, np.uint8)
    padded[:80, :80] = picture
    cv2.imwrite('picture.png', padded)
    code, = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
    exec(code.replace('.3:', '.01:'), {})
    lines = capsys.readouterr().out.splitlines()
    predictor = OnnxPredictor(build_model(cfg), out)
    sample = DetDataSample(metainfo=dict(
        img_shape=(96, 96), scale_factor=(1., 1.)))
    found = predictor.test_step(dict(inputs=[torch.from_numpy(
        padded.transpose(2, 0, 1).copy())], data_samples=[sample]))[0]
    scores = found.pred_instances.scores
    assert len(lines) == (scores > .01).sum() > 0
    assert [float(line.split()[1]) for line in lines] == pytest.approx(
        scores[:len(lines)].tolist(), abs=1e-4)
    assert all(line[0] in '0123456789' for line in lines)


def test_files_of_another_kind(boxes_file, crops, tmp_path):
    out, cfg = boxes_file
    dense = write_file(tmp_path / 'dense.onnx', format_version=1,
                       kind='dense')
    with pytest.raises(InputError, match='ends with the tensors of a head'):
        OnnxPredictor(build_model(cfg), dense)
    with pytest.raises(InputError, match=(
            'is a detector, the config has a ImageClassifier')):
        OnnxPredictor(build_model(crops[0]), out)
    predictor = OnnxPredictor(build_model(cfg), out)
    with pytest.raises(RuntimeError, match='can only predict, not loss'):
        predictor(torch.zeros(1, 3, 96, 96), [], mode='loss')


def test_boxes_of_a_resized_picture():
    found = dict(boxes=torch.tensor([[[2., 3., 8., 9.], [0., 0., 0., 0.]]]),
                 scores=torch.tensor([[.5, 0.]]),
                 labels=torch.tensor([[3, -1]]))
    boxes = boxes_of(found, 0, (2., .5))
    assert boxes.bboxes.tolist() == [[1., 6., 4., 18.]]
    assert boxes.labels.tolist() == [3] and boxes.scores.tolist() == [.5]


def test_picture_sizes():
    samples = [DetDataSample(metainfo=dict(img_shape=shape))
               for shape in ((4, 5), (6, 7, 3))]
    sizes = picture_sizes(samples)
    assert sizes.tolist() == [[4, 5], [6, 7]] and sizes.dtype == torch.int64
