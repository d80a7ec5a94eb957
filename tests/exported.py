"""Fixtures: exported once for all tests, as that takes many seconds."""
import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from settling import settle

from mmadder.cli import load_config
from mmadder.export import export_onnx
from mmadder.integer import IntegerNetwork, integer_reference
from mmadder.models import build_model

ROOT = Path(__file__).parents[1]
CROPS = ROOT / 'configs/digits/ann-awn-centered-resnet18_1xb32-5e_digits.py'
SMALL = f'''
_base_ = {str(CROPS)!r}
model = dict(backbone=dict(stem_channels=8, base_channels=8),
             head=dict(in_channels=64))
loader = dict(num_workers=0, persistent_workers=False, pin_memory=False,
              batch_size=4)
test_dataloader = loader
'''


@pytest.fixture(scope='session')
def crops(digits, tmp_path_factory):
    """(config, file, checkpoint) of a small classifier of digits."""
    folder = tmp_path_factory.mktemp('crops')
    path = folder / 'small.py'
    path.write_text(SMALL)
    cfg = Config.fromfile(path)
    cfg.test_dataloader.dataset.data_root = str(digits)
    torch.manual_seed(0)
    model = build_model(cfg)
    settle(model, torch.randn(32, 3, 64, 64), run=model.extract_feat)
    checkpoint = folder / 'small.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(
        dataset_meta=dict(classes=tuple('0123456789')))), checkpoint)
    return copy.deepcopy(cfg), path, str(checkpoint)


@pytest.fixture(scope='session')
def scene():
    """The shipped detector in integers, a real picture, the oracle's maps."""
    network = IntegerNetwork.load(ROOT / 'weights/digits.npz')
    picture = cv2.imread(str(ROOT / 'weights/digits.jpg'))
    assert network.model['channel_order'] == 'RGB'
    image = np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)[None])
    return network, image, integer_reference.run(network, image)


@pytest.fixture(scope='session')
def boxes_file(made_detector, digits, tmp_path_factory):
    """(file, config) of the tiny Faster R-CNN, end to end."""
    folder = made_detector[0]
    cfg = load_config(str(folder / 'tiny.py'), ('test_dataloader', ),
                      data_root=str(digits))
    out = tmp_path_factory.mktemp('onnx') / 'boxes.onnx'
    export_onnx(cfg, str(folder / 'tiny.pth'), out, pictures=2)
    return out, cfg
