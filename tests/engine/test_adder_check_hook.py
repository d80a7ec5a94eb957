"""Configs with which adders cannot learn are named, others are not."""
import cv2
import numpy as np
import pytest
import torch
from plain_detector import LINES, train

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
