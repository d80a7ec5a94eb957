"""Counts of the adder detectors against sums written out by hand.

Taps are multiply-accumulates: an adder makes two additions of each.
"""
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

from mmadder.analysis.complexity import count_operations
from mmadder.layers import AdderConv2d
from mmadder.models import build_model

CONFIGS = Path(__file__).parents[2] / 'configs' / 'coco'
SHAPE = 448, 672  # six times the area of 224x224
STRIDE_4, STRIDE_8, STRIDE_16, STRIDE_32, STRIDE_64, STRIDE_128 = (
    112 * 168, 56 * 84, 28 * 42, 14 * 21, 7 * 11, 4 * 6)  # rounded up
CONV = 256 * 256 * 9
R18_STEM = 6 * 118_013_952
R18_ADDERS = 6 * (1_814_073_344 - 118_525_952)


def count(detector, shape=SHAPE):
    """Return the counts of a config, after checking what holds for all."""
    path, = CONFIGS.glob(f'{detector}_ann-awn-[rs]*.py')
    model = build_model(Config.fromfile(path))
    counts = count_operations(model, shape)
    called = {row['name'] for row in counts['layers'] if row['calls']}
    assert called == {
        name for name, module in model.named_modules() if isinstance(
            module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, AdderConv2d))}
    assert counts['not_counted'] == []
    return counts


def check(counts, multiplications, adder_taps):
    """Compare the parts, given {part: multiplications}."""
    parts = counts['parts']
    assert {key: part['multiplications'] for key, part in parts.items()
            } == multiplications
    assert {key: part['additions'] for key, part in parts.items()} == {
        key: taps + 2 * adder_taps.get(key, 0)
        for key, taps in multiplications.items()}
    assert counts['multiplications'] == sum(multiplications.values())


def two_stage_neck():
    """P2 to P5: lateral and output; P6 is every second pixel of P5."""
    levels = STRIDE_4, STRIDE_8, STRIDE_16, STRIDE_32
    return sum(cells * (channels * 256 + CONV)
               for cells, channels in zip(levels, (64, 128, 256, 512)))


def rpn():
    cells = STRIDE_4 + STRIDE_8 + STRIDE_16 + STRIDE_32 + STRIDE_64
    return cells * (CONV + 256 * 3 * (1 + 4))


def test_cascade_rcnn():
    """Three box heads, each on all 1000 proposals, classes share a box."""
    counts = count('cascade-rcnn')
    box_head = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 4)
    check(counts,
          dict(backbone=R18_STEM, neck=0, rpn_head=rpn(),
               roi_head=3 * 1000 * box_head),
          dict(backbone=R18_ADDERS, neck=two_stage_neck()))
    assert counts['proposals'] == 1000


def test_mask_rcnn():
    """Masks for the 100 detections that a test keeps."""
    box_head = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    mask_head = (4 * 14 * 14 * CONV + 14 * 14 * 2 * 2 * 256 * 256
                 + 28 * 28 * 256 * 80)
    check(count('mask-rcnn'),
          dict(backbone=R18_STEM, neck=0, rpn_head=rpn(),
               roi_head=1000 * box_head + 100 * mask_head),
          dict(backbone=R18_ADDERS, neck=two_stage_neck()))


# What the head predicts in a cell: nine anchors of 80 classes and a box, or
# classes, a box and centerness.
@pytest.mark.parametrize('detector, p6_input, predictions', [
    ('retinanet', 512, 9 * (80 + 4)), ('fcos', 256, 80 + 4 + 1),
    ('atss', 256, 80 + 4 + 1)])
def test_one_stage(detector, p6_input, predictions):
    """P3 to P7, the last two by strided adders; a head shared by all."""
    levels = STRIDE_8, STRIDE_16, STRIDE_32
    neck = sum(cells * (channels * 256 + CONV)
               for cells, channels in zip(levels, (128, 256, 512)))
    neck += STRIDE_64 * p6_input * 256 * 9 + STRIDE_128 * CONV
    cells = sum(levels) + STRIDE_64 + STRIDE_128
    counts = count(detector)
    check(counts,
          dict(backbone=R18_STEM, neck=0,
               bbox_head=cells * (8 * CONV + 256 * 9 * predictions)),
          dict(backbone=R18_ADDERS, neck=neck))
    rows = {row['name']: row for row in counts['layers']}
    assert rows['bbox_head.cls_convs.0.conv']['calls'] == 5


def csp(channels, out, blocks):
    """Two entries, blocks of 1x1 and 3x3, and the exit, taps of a cell."""
    half = out // 2
    return 2 * channels * half + blocks * 10 * half**2 + 2 * half * out


def test_yolox():
    backbone = (
        STRIDE_4 * (9 * 32 * 64 + csp(64, 64, 1))
        + STRIDE_8 * (9 * 64 * 128 + csp(128, 128, 3))
        + STRIDE_16 * (9 * 128 * 256 + csp(256, 256, 3))
        + STRIDE_32 * (9 * 256 * 512 + 512 * 256 + 4 * 256 * 512
                       + csp(512, 512, 1)))
    neck = (
        STRIDE_32 * 512 * 256 + STRIDE_16 * (csp(512, 256, 1) + 256 * 128)
        + STRIDE_8 * csp(256, 128, 1)
        + STRIDE_16 * (9 * 128 * 128 + csp(256, 256, 1))
        + STRIDE_32 * (9 * 256 * 256 + csp(512, 512, 1))
        + 128 * (STRIDE_8 * 128 + STRIDE_16 * 256 + STRIDE_32 * 512))
    cells = STRIDE_8 + STRIDE_16 + STRIDE_32
    check(count('yolox'),
          dict(backbone=4 * STRIDE_4 * 9 * 12 * 32, neck=0,
               bbox_head=cells * (4 * 9 * 128**2 + 128 * (80 + 4 + 1))),
          dict(backbone=backbone, neck=neck))
