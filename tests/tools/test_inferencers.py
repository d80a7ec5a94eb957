"""Inferencers and scripts of MMDetection and MMPretrain on our configs."""
import json
import subprocess
import sys
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.apis import get_model

from mmadder.errors import InputError
from mmadder.inference import empty_quantized, save_quantized
from mmadder.models import build_model

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTOR = 'digits/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py'
CLASSIFIER = 'digits/ann-awn-resnet18_1xb32-5e_digits.py'
CIFAR = 'cifar10/ann-awn-resnet20_1xb256_cifar10.py'
DETECT = '''
from mmdet.apis import DetInferencer, inference_detector, init_detector
config, checkpoint, picture = sys.argv[1:]
found = DetInferencer(config, checkpoint, device='cpu')(
    picture, out_dir='outputs')['predictions'][0]
model = init_detector(config, checkpoint, device='cpu')
sample = inference_detector(model, picture)
assert len(sample.pred_instances) == len(found['scores'])
print(json.dumps(sorted(found)))
'''
CLASSIFY = '''
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer
config, checkpoint, picture = sys.argv[1:]
found = ImageClassificationInferencer(
    config, pretrained=checkpoint, device='cpu')(picture)[0]
features = FeatureExtractor(
    config, pretrained=checkpoint, device='cpu')(picture)[0]
print(json.dumps([found['pred_label'], found['pred_class'],
                  list(features[-1].shape)]))
'''


@pytest.fixture
def place(tmp_path):
    """Return a function that writes a config and a checkpoint beside a
    picture, and gives the three names."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(
        0, 255, (48, 56, 3), dtype=np.uint8))

    def write(config, text=''):
        path = tmp_path / 'config.py'
        path.write_text(f'_base_ = {str(CONFIGS / config)!r}\n{text}')
        torch.manual_seed(0)
        model = build_model(Config.fromfile(path))
        torch.save(dict(state_dict=model.state_dict(), meta=dict(
            dataset_meta=dict(classes=tuple('0123456789')))),
            tmp_path / 'a.pth')
        return 'config.py', 'a.pth', 'a.png'

    return write


def run(code, arguments, folder):
    result = subprocess.run(
        [sys.executable, '-c', f'import json, sys\n{code}', *arguments],
        cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_detectors(place, tmp_path):
    names = place(DETECTOR, 'model = dict(backbone=dict(init_cfg=None))')
    assert run(DETECT, names, tmp_path) == ['bboxes', 'labels', 'scores']
    assert (tmp_path / 'outputs' / 'vis' / 'a.png').is_file()


@pytest.mark.parametrize('config, size', [(CLASSIFIER, 256), (CIFAR, 64)])
def test_classifiers(place, tmp_path, config, size):
    label, name, shape = run(CLASSIFY, place(config), tmp_path)
    assert name == str(label)
    assert shape == [size]


def test_8_bits_are_refused_or_loaded(detector, small, digits):
    """MMEngine would skip all keys: no boxes, and no word about it."""
    _, config, _ = detector
    path = str(small / 'detector.pth')
    quantized = empty_quantized(build_model(config))
    save_quantized(quantized, path)
    with pytest.raises(InputError, match='8 bits'):
        init_detector(config, path, device='cpu')
    with pytest.warns(UserWarning, match='checkpoint is None'):
        model = empty_quantized(init_detector(
            config, palette='random', device='cpu'))
    load_checkpoint(model, path)
    for key, value in quantized.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    picture = digits / 'VOC2007' / 'JPEGImages' / 'val_0.jpg'
    assert len(inference_detector(model, str(picture)).pred_instances)

    path, config = str(small / 'int8.pth'), str(small / 'small.py')
    save_quantized(
        empty_quantized(build_model(Config.fromfile(config))), path)
    with pytest.raises(InputError, match='8 bits'):
        get_model(config, pretrained=path, device='cpu')


@pytest.mark.slow
def test_scripts_of_mmdetection(place, digits, tmp_path):
    config, checkpoint, _ = place(
        DETECTOR, 'model = dict(backbone=dict(init_cfg=None))\n' + ''.join(
            f'{split}_dataloader = dict(dataset=dict(data_root={str(digits)!r}'
            '), num_workers=0, persistent_workers=False)\n'
            for split in ('train', 'val', 'test')))
    scripts = Path(mmdet.__file__).parent / '.mim' / 'tools'
    for script, *arguments in (
            ('test.py', config, checkpoint, '--out', 'found.pkl'),
            ('analysis_tools/browse_dataset.py', config, '--not-show',
             '--output-dir', 'browsed'),
            ('analysis_tools/analyze_results.py', config, 'found.pkl',
             'analyzed', '--topk', '1')):
        result = subprocess.run(
            [sys.executable, scripts / script, *arguments], cwd=tmp_path,
            capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
    assert len(list((tmp_path / 'browsed').rglob('*.jpg'))) == 6
    assert list((tmp_path / 'analyzed').rglob('*.jpg'))
