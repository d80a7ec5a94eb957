"""Configs with which adders cannot learn are named, others are not."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from plain_detector import LINES, train
from torch import nn

from mmadder.engine import AdderCheckHook
from mmadder.engine.adder_check_hook import frozen_norms
from mmadder.inference import empty_quantized, fuse_adder_bn
from mmadder.layers import AdderConv2d
from mmadder.models import AdderResNet

HOOK = "custom_hooks = [dict(type='AdderCheckHook')]\n"
NO_NORM = 'without a norm behind them'
FROZEN = 'keep mean 0 and variance 1'
BATCH = 'depends on the others in its batch'
FREE_FPN = HOOK + '''
model = dict(neck=dict(
    _delete_=True, type='FPN', in_channels=[4, 8, 16, 32], out_channels=8,
    num_outs=5, conv_cfg=conv_cfg, no_norm_on_lateral={lateral}))
'''.replace('conv_cfg=conv_cfg', "conv_cfg=dict(type='AdderConv2d')")


@pytest.fixture
def run(voc, tmp_path):
    """Return a function: log of a training from the plain config."""
    return lambda name, lines: train(tmp_path, voc, name, lines)[0]


def test_silent_where_adders_learn(run):
    log = run('plain', HOOK)
    assert not any(text in log for text in (NO_NORM, FROZEN, BATCH))


@pytest.mark.parametrize('lateral', [False, True])
def test_adders_without_norm(run, lateral):
    """The loss was 4,600, then 9e10."""
    log = run('free', FREE_FPN.format(lateral=lateral))
    assert log.count(NO_NORM) == 1
    assert 'neck.lateral_convs.0, neck.lateral_convs.1' in log
    lines = next(text for text in LINES.findall(log) if 'norm_cfg' in text)
    assert ('no_norm_on_lateral=False' in lines) == lateral
    mended = FREE_FPN.format(lateral=lateral)
    path = 'model = dict(neck=dict('
    assert lines.startswith(path)
    log = run('mended', mended.replace('    num_outs=5', '    ' + lines[
        len(path):-2] + ', num_outs=5').replace(
            ', no_norm_on_lateral=True', ''))
    assert NO_NORM not in log


def test_norms_that_never_learn(run, voc, tmp_path):
    frozen = HOOK + 'model = dict(backbone=dict(' \
        'norm_eval=True, frozen_stages={}{}))'
    log = run('frozen', frozen.format(1, ''))
    assert log.count(FROZEN) == 1
    lines = next(text for text in LINES.findall(log) if 'norm_eval' in text)
    assert lines == 'model = dict(backbone=dict(norm_eval=False, ' \
        'frozen_stages=-1))'
    log, runner = train(tmp_path, voc, 'mended', f'{HOOK}{lines}')
    assert FROZEN not in log
    # Norms that know what comes, of a trained backbone.
    torch.save(runner.model.backbone.state_dict(), tmp_path / 'trained.pth')
    log = run('trained', frozen.format(1, (
        ", init_cfg=dict(type='Pretrained', "
        f"checkpoint='{tmp_path}/trained.pth')")))
    assert FROZEN not in log


def test_norms_of_the_backbones_themselves():
    """AdderResNet is MMPretrain's, frozen by either setting."""
    small = dict(depth=18, stem_channels=4, base_channels=4)
    assert not list(frozen_norms(AdderResNet(**small).train()))
    names = list(frozen_norms(AdderResNet(norm_eval=True, **small).train()))
    assert len(names) == 19 and 'layer2.0.downsample.1' in names
    assert list(frozen_norms(AdderResNet(frozen_stages=1, **small).train())) \
        == [f'layer1.{i}.bn{j}' for i in (0, 1) for j in (1, 2)]
    twin = AdderResNet(norm_eval=True, conv_cfg=None, **small)
    assert not list(frozen_norms(twin.train()))


def test_fused_and_quantized_adders_see_padding_too(warnings):
    model = nn.Sequential(AdderConv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    batches = dict(inputs=[torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)])
    for network, count in ((nn.Conv2d(3, 4, 3), 0), (model, 1),
                           (fuse_adder_bn(model), 1),
                           (empty_quantized(model), 1)):
        warnings.clear()
        hook, runner = AdderCheckHook(), SimpleNamespace(model=network)
        for i in range(2):
            hook.before_test_iter(runner, i, batches)
        assert len(warnings) == count
        assert all('test_dataloader = dict(' in text for text in warnings)


@pytest.mark.parametrize('batch_size, width, conv_cfg, times', [
    (3, 96, "dict(type='AdderConv2d', weight_norm='AWN')", 1),
    (3, 64, "dict(type='AdderConv2d', weight_norm='AWN')", 0),  # one size
    (1, 96, "dict(type='AdderConv2d', weight_norm='AWN')", 0),
    (3, 96, None, 0)])
def test_batches_of_pictures_of_several_sizes(
        run, voc, batch_size, width, conv_cfg, times):
    """What is found in a picture depended on its neighbours."""
    picture = voc / 'JPEGImages/train_1.jpg'
    cv2.imwrite(str(picture), np.full((64, width, 3), 90, np.uint8))
    log = run('sizes', HOOK + f'''
conv_cfg = {conv_cfg}
train_cfg = dict(val_interval=1)
model = dict(backbone=dict(conv_cfg=conv_cfg), neck=dict(conv_cfg=conv_cfg),
             test_cfg=dict(nms_pre=10, score_thr=.5, max_per_img=5,
                           nms=dict(type='nms', iou_threshold=.5)))
val_dataloader = dict(
    batch_size={batch_size}, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='XMLDataset', data_root={str(voc)!r}, test_mode=True,
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('0', '1', '2', '3', '4', '5')),
        pipeline=[dict(type='LoadImageFromFile'),
                  dict(type='Resize', scale_factor=1.),
                  dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='PackDetInputs', meta_keys=(
                      'img_id', 'img_shape', 'ori_shape', 'scale_factor'))]))
val_cfg = dict()
val_evaluator = dict(type='VOCMetric')
''')
    assert log.count(BATCH) == times
    if times:
        assert 'val_dataloader = dict(batch_size=1)' in log
