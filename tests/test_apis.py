"""One call from Python."""
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmpretrain.apis import ImageClassificationInferencer
from mmpretrain.structures import DataSample

import mmadder
from mmadder.apis import WEIGHTS, load, shipped_weights
from mmadder.cli import load_config
from mmadder.errors import InputError
from mmadder.export import export_integer
from mmadder.files import shipped
from mmadder.inference import quantize, save_quantized
from mmadder.inference.plan import Planned
from mmadder.integer import IntegerNetwork


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp('picture') / 'a.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(
        0, 255, (64, 72, 3), dtype=np.uint8))
    return path


def same_boxes(found, expected, atol=1e-3):
    """In the same order, but where scores are equal up to rounding."""
    found, expected = (torch.cat([
        boxes.bboxes, boxes.scores[:, None], boxes.labels[:, None]], 1)
        for boxes in (found.pred_instances, expected.pred_instances))
    assert found.shape == expected.shape
    torch.testing.assert_close(
        found[:, 4], expected[:, 4], rtol=1e-4, atol=atol)
    if atol:
        distances = (expected[:, None] - found).abs().amax(-1)
        nearest = distances.argmin(1)
        assert len(nearest.unique()) == len(nearest)
        found = found[nearest]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=atol)


def test_a_detector_in_float(detector, picture):
    folder = detector[0]
    files = str(folder / 'tiny.py'), folder / 'tiny.pth'
    plain, fused = (mmadder.load(*files, fuse=fuse) for fuse in (False, True))
    sample = plain(picture)
    assert isinstance(sample, DetDataSample)
    assert len(sample.pred_instances)
    assert any(isinstance(m, Planned) for m in fused.model.modules())
    same_boxes(fused(picture), sample)
    same_boxes(plain(cv2.imread(str(picture))), sample, 0)
    # In pixels of the picture, which the pipeline makes larger.
    assert sample.pred_instances.bboxes.max() <= 72


def test_every_kind_of_file_behind_the_same_call(crops, digits, picture,
                                                 tmp_path):
    _, path, checkpoint = crops
    cfg = load_config(str(path), ('val_dataloader', 'test_dataloader'),
                      data_root=str(digits))
    classifier = load(cfg, checkpoint)
    expected = classifier(picture)
    assert isinstance(expected, DataSample)
    assert classifier.classes == tuple('0123456789')
    integer = tmp_path / 'small.npz'
    export_integer(cfg, checkpoint, integer, batches=1, progress=False)
    int8 = tmp_path / 'int8.pth'
    model = load(cfg, checkpoint, fuse=False)
    batch = dict(inputs=[torch.randint(0, 256, (3, 48, 48))] * 2,
                 data_samples=None)
    save_quantized(quantize(model.model, [batch], progress=False), int8,
                   dict(dataset_meta=dict(classes=classifier.classes)))
    for files in ((integer, ), (cfg, integer), (cfg, int8)):
        predictor = load(*files)
        assert tuple(predictor.classes) == tuple('0123456789')
        found = predictor(picture).pred_score
        assert (found - expected.pred_score).abs().max() < .2


def test_mmpretrain_loads_what_is_shipped(picture):
    name = 'ann-awn-centered-resnet20_1xb256_cifar10.py'
    config = shipped('configs') / 'cifar10' / name
    checkpoint, = shipped(WEIGHTS).glob('ann-awn-centered*.pth')
    with open(os.devnull, 'w') as nowhere, \
            contextlib.redirect_stdout(nowhere):
        inferencer = ImageClassificationInferencer(
            str(config), pretrained=str(checkpoint), device='cpu')
        small = cv2.resize(cv2.imread(str(picture)), (32, 32))
        found, = inferencer(small[..., ::-1])  # CIFAR's arrays are RGB
    expected = load(config, checkpoint)(small)
    assert found['pred_class'] in ('airplane', 'automobile', 'bird', 'cat',
                                   'deer', 'dog', 'frog', 'horse', 'ship',
                                   'truck')
    np.testing.assert_allclose(
        found['pred_scores'], expected.pred_score, atol=1e-4)


def test_an_onnx_file_has_its_config(boxes_file, picture):
    pytest.importorskip('onnxruntime')
    out, cfg = boxes_file
    detector = load(out)
    assert isinstance(detector(picture), DetDataSample)
    same_boxes(detector(picture), load(cfg, out)(picture), 0)


def test_files_are_data(crops, tmp_path, monkeypatch):
    """Downloaded weights ran what stood in their config, or pickle."""
    monkeypatch.chdir(tmp_path)
    network = IntegerNetwork.load(shipped_weights()['digits'])
    network.model['config'] = 'open("ran", "w")\n' + network.model['config']
    network.save('evil.npz')
    with pytest.raises(InputError, match='evil.npz is more than names'):
        load('evil.npz')

    class Evil:
        def __reduce__(self):
            return open, ('ran', 'w')

    torch.save(dict(state_dict={}, evil=Evil()), 'evil.pth')
    with pytest.raises(InputError, match='evil.pth is more than data'):
        load(crops[0], 'evil.pth')
    assert not (tmp_path / 'ran').exists()
    with pytest.raises(InputError, match='holds no state dict'):
        load(crops[0], 'evil.pth', trust_checkpoint=True)
    assert (tmp_path / 'ran').exists()


def test_files_that_are_none(crops, tmp_path):
    content = Path(crops[2]).read_bytes()
    for damaged in (b'', b'hello', content[:len(content) // 2]):
        (tmp_path / 'a.pth').write_bytes(damaged)
        with pytest.raises(InputError, match='a.pth cannot be read'):
            load(crops[0], tmp_path / 'a.pth')
    with pytest.raises(InputError, match='gpu: '):
        load(crops[0], crops[2], device='gpu')


@pytest.mark.parametrize('source, message', [
    ('nothing', r"load: 'nothing' is neither shipped weights \(.*\) nor a"),
    ('configs/a.py', 'with a config, give its checkpoint too'),
    ('none.npz', "file 'none.npz' does not exist"),
    (Config(dict(default_scope='mmdet')), 'with a config, give its checkp')])
def test_what_cannot_be_loaded(source, message):
    with pytest.raises(InputError, match=message):
        load(source)


def test_arrays_that_are_no_pictures(crops):
    classifier = load(str(crops[1]), crops[2])
    for array in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)),
                  np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r'must be \(H, W, 3\) of uint8'):
            classifier(array)
    for other in (None, ['a.png'], b'a'):
        with pytest.raises(InputError, match='a file or an array .* got '
                           f'{type(other).__name__}; call once'):
            classifier(other)


def test_what_is_shipped_can_be_called(picture):
    for name, path in shipped_weights().items():
        assert path.is_file()
        predictor = load(name)
        assert predictor.classes
        assert isinstance(predictor(picture), DetDataSample | DataSample)


def test_demo_command(tmp_path):
    run = [sys.executable, '-m', 'mmadder', 'demo']
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    out = tmp_path / 'outputs' / 'digits.png'
    assert found.stdout.rstrip().endswith('drawn in outputs/digits.png')
    assert ' boxes, ' in found.stdout and out.is_file()
    found = subprocess.run([*run, 'none.png'], cwd=tmp_path,
                           capture_output=True, text=True)
    assert found.returncode == 1
    assert 'picture none.png does not exist' in found.stderr
    assert 'Traceback' not in found.stderr
    found = subprocess.run([*run, '--weights', 'bccd'], cwd=tmp_path,
                           capture_output=True, text=True)
    assert found.returncode == 1
    assert 'no picture is shipped for --weights bccd' in found.stderr
