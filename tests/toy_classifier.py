"""A toy classifier, and a small one with config and data, for attacks."""
import runpy
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmadder.models import build_model

ROOT = Path(__file__).parents[1]
CONFIG = f'''
_base_ = {str(ROOT / 'configs/cifar10/ann-resnet20_1xb256_cifar10.py')!r}
model = dict(backbone=dict(stem_channels=4, base_channels=4),
             head=dict(in_channels=16))
'''


def toy(seed=0):
    """Images with one bright corner of four, and a net that finds it."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                          nn.Flatten(), nn.Linear(4 * 36, 4))
    labels = torch.arange(40) % 4
    images = torch.rand(40, 3, 8, 8) * .5
    for image, label in zip(images, labels):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[:, row:row + 4, column:column + 4] += .15
    optimizer = torch.optim.SGD(model.parameters(), .1)
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), images, labels


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def run_tool(monkeypatch, *args):
    path = str(ROOT / 'tools' / 'robustness.py')
    monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
    runpy.run_path(path, run_name='__main__')


def write_small(tmp_path):
    """A folder with a small config and its checkpoint, beside the data."""
    config = tmp_path / 'small.py'
    config.write_text(CONFIG)
    torch.manual_seed(0)
    model = build_model(Config.fromfile(config))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'small.pth')
    return tmp_path
