"""Counts against the integers of AdderNet's networks, and by hand."""
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmadder.analysis.complexity import count_operations, input_shape
from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import build_model

ROOT = Path(__file__).parents[2]
CIFAR = 'cifar10/{}-resnet{}_1xb256_cifar10.py'
BCCD = 'bccd/faster-rcnn_{0}-r18_{0}-fpn_1xb4-24e_bccd.py'


def count(name, shape=None):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    return count_operations(build_model(cfg), shape or input_shape(cfg))


def resnet18(conv_cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='AdderResNet', depth=18, conv_cfg=conv_cfg),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000,
                      in_channels=512)))


# Multiply-accumulates of all layers, of convolutions and classifier, and the
# energy in microjoules.
@pytest.mark.parametrize('depth, taps, conv_taps, fp32, int8', [
    (20, 40_813_184, 443_008, 74.70, 2.524),
    (32, 69_124_736, 443_008, 125.66, 4.223)])
@pytest.mark.parametrize('variant', ['ann', 'ann-ws', 'ann-awn'])
def test_cifar_networks(variant, depth, taps, conv_taps, fp32, int8):
    counts = count(CIFAR.format(variant, depth))
    assert counts['multiplications'] == conv_taps
    assert counts['additions'] == 2 * taps - conv_taps
    assert counts['energy_fp32_uJ'] == pytest.approx(fp32, abs=.005)
    assert counts['energy_int8_uJ'] == pytest.approx(int8, abs=.0005)
    assert counts['input_shape'] == [32, 32]
    cnn = count(CIFAR.format('cnn', depth))
    assert cnn['multiplications'] == cnn['additions'] == taps


@pytest.mark.parametrize('filters, divisions', [(8, 0), (6, 1)])
def test_centered_by_hand(filters, divisions):
    """A sum and a difference per output; a mean per position and group."""
    adder = AdderConv2d(3, 2 * filters, 3, groups=1, center=True)
    grouped = AdderConv2d(2 * filters, 2 * filters, 1, groups=2, center=True)
    counts = count_operations(nn.Sequential(adder, grouped), (10, 12))
    outputs = 2 * filters * 8 * 10
    assert counts['additions'] == outputs * (2 * 27 + 2 * filters + 2 * 2)
    # 2 * 6 filters are no power of two either.
    assert counts['multiplications'] == divisions * 8 * 10 * (1 + 2)


def test_resnet18_at_224():
    counts = count_operations(
        resnet18(dict(type='AdderConv2d', weight_norm='AWN')), (224, 224))
    assert counts['multiplications'] == 118_525_952
    assert counts['additions'] == 3_509_620_736
    assert counts['energy_fp32_uJ'] == pytest.approx(3597.2, abs=.05)
    cnn = count_operations(resnet18(None), (224, 224))
    assert cnn['multiplications'] == cnn['additions'] == 1_814_073_344
    assert cnn['energy_int8_uJ'] == pytest.approx(417.24, abs=.005)
    assert cnn['parameters'] == 11_689_512  # torchvision's


def test_layers_and_parts_add_up():
    counts = count(CIFAR.format('ann-awn', 20))
    for key in ('multiplications', 'additions', 'parameters',
                'energy_fp32_uJ'):
        for rows in (counts['layers'], counts['parts'].values()):
            assert sum(row[key] for row in rows) == pytest.approx(counts[key])
    rows = {row['name']: row for row in counts['layers']}
    row = rows['backbone.layer2.0.downsample.0']
    assert row['type'] == 'AdderConv2d'
    assert row['additions'] == 2 * 32 * 16 * 16 * 16
    assert rows['backbone.layer2.0.downsample.0.awn']['parameters'] == 64
    assert rows['backbone.bn1']['additions'] == 0


def test_detector_by_hand():
    """RPN on five levels, RoI head on all proposals, FPN of adders."""
    counts = count(BCCD.format('ann-awn'))
    assert counts['input_shape'] == [240, 320]
    assert counts['proposals'] == 100
    sizes = [(60, 80), (30, 40), (15, 20), (8, 10), (4, 5)]
    cells = [h * w for h, w in sizes]
    rpn = sum(cells) * (64 * 64 * 9 + 64 * 3 * 5)
    roi = 100 * (64 * 7 * 7 * 256 + 256 * 256 + 256 * (4 + 3 * 4))
    neck = sum(n * 64 * (c + 64 * 9)
               for n, c in zip(cells, (32, 64, 128, 256)))
    parts = counts['parts']
    assert parts['rpn_head']['multiplications'] == rpn
    assert parts['roi_head']['multiplications'] == roi
    assert parts['neck']['additions'] == 2 * neck
    assert parts['neck']['multiplications'] == 0
    cnn = count(BCCD.format('cnn'))
    assert cnn['parts']['neck']['multiplications'] == neck
    assert cnn['parts']['rpn_head'] == parts['rpn_head']


def test_other_layers_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, (3, 2), stride=2, padding=(1, 0), bias=True),
        nn.Conv2d(8, 8, 3, groups=4, dilation=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2), AdderConv2d(6, 4, 1, groups=2),
        nn.Flatten(), nn.Linear(4 * 6 * 8, 5))
    counts = count_operations(model, (13, 17))
    taps = [7 * 8 * 8 * 3 * 6, 3 * 4 * 8 * 2 * 9, 3 * 4 * 8 * 6 * 4,
            6 * 8 * 4 * 3, 4 * 6 * 8 * 5]
    assert [row['additions'] for row in counts['layers']] == [
        *taps[:3], 2 * taps[3], taps[4]]
    assert [row['multiplications'] for row in counts['layers']] == [
        *taps[:3], 0, taps[4]]
    assert counts['parameters'] == sum(p.numel() for p in model.parameters())
    assert counts['not_counted'] == []


def test_model_works_as_before():
    model = resnet18(dict(type='AdderConv2d'))
    model.backbone.layer1.eval()
    image = torch.rand(2, 3, 32, 32)
    expected = model.eval()(image)
    model.train().backbone.layer1.eval()
    count_operations(model, (32, 32))
    assert model.backbone.bn1.training
    assert not model.backbone.layer1.training
    assert torch.equal(model.eval()(image), expected)


def test_layers_without_rule_are_named():
    class Attention(nn.Module):

        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, x):
            x = x.flatten(2).mT
            return self.attention(x, x, x)

    assert count_operations(Attention(), (4, 4))['not_counted'] == [
        'MultiheadAttention']


@pytest.mark.parametrize('name, shape', [
    ('mmpretrain::_base_/datasets/imagenet_bs32.py', (224, 224)),
    ('mmpretrain::_base_/datasets/cifar10_bs16.py', (32, 32)),
    ('mmdet::_base_/datasets/voc0712.py', (600, 1000)),
    ('mmdet::_base_/datasets/coco_detection.py', (800, 1333))])
def test_size_from_the_test_pipeline(name, shape):
    cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
    assert input_shape(cfg) == shape


def test_sizes_of_our_configs():
    for path in (ROOT / 'configs').glob('[!_]*/*.py'):
        assert min(input_shape(Config.fromfile(path))) >= 32
    with pytest.raises(InputError, match='--shape HEIGHT WIDTH'):
        input_shape(Config(dict(model=dict())))


def test_tool(monkeypatch, capsys, tmp_path):
    path = tmp_path / 'counts.json'
    monkeypatch.setattr(sys, 'argv', [
        'get_complexity.py', str(ROOT / 'configs' / CIFAR.format('ann', 20)),
        '--json', str(path), '--shape', '32', '64'])
    runpy.run_path(str(ROOT / 'tools' / 'get_complexity.py'),
                   run_name='__main__')
    counts = json.loads(path.read_text())
    # All but the classifier's 640 double with the width.
    assert counts['additions'] == 2 * (81_183_360 - 640) + 640
    printed = capsys.readouterr().out
    assert f'{counts["additions"]:,}' in printed
    assert '64x32 pixels (width x height)' in printed
