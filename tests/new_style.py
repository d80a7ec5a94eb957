"""Small configs of MMEngine's new style: read_base, classes as types."""
from pathlib import Path

RUNTIME = '''
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import SGD

default_scope = None  # as the new style has it in OpenMMLab's configs
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=.01))
loader = dict(batch_size=2, num_workers=0,
              sampler=dict(type=DefaultSampler, shuffle=False))
'''
HEAD = '''
from mmengine.config import read_base

with read_base():
    from .runtime import *

from mmcv.transforms import LoadImageFromFile
from mmadder.layers import AWN, WS, AdderConv2d
from mmadder.models import AdderFPN, AdderResNet

conv_cfg = CONV_CFG
'''
DETECTOR = HEAD + '''
from mmdet.datasets import VOCDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import VOCMetric
from mmdet.models import (
    DetDataPreprocessor, FocalLoss, L1Loss, RetinaHead, RetinaNet)
from mmdet.models.task_modules import (
    AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler)

model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[0.] * 3,
                           std=[255.] * 3),
    backbone=dict(type=AdderResNet, depth=18, out_indices=(1, 2, 3),
                  stem_channels=4, base_channels=4, conv_cfg=conv_cfg),
    neck=dict(type=AdderFPN, in_channels=[8, 16, 32], out_channels=8,
              num_outs=3, conv_cfg=conv_cfg),
    bbox_head=dict(
        type=RetinaHead, num_classes=20, in_channels=8, feat_channels=8,
        stacked_convs=1,
        anchor_generator=dict(type=AnchorGenerator, octave_base_scale=4,
                              scales_per_octave=1, ratios=[1.],
                              strides=[8, 16, 32]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss)),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=.5, neg_iou_thr=.4,
                      min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type=PseudoSampler), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=100, score_thr=0., max_per_img=20,
                  nms=dict(type='nms', iou_threshold=.5)))
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(96, 64), keep_ratio=True),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=PackDetInputs, meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
loader.update(dataset=dict(
    type=VOCDataset, data_root='data', ann_file='ImageSets/Main/test.txt',
    data_prefix=dict(sub_data_root='VOC2007/'), pipeline=pipeline))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(type=VOCMetric)
test_evaluator = val_evaluator
'''
CLASSIFIER = HEAD + '''
from mmengine.dataset import default_collate
from mmpretrain.datasets import PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    ClsDataPreprocessor, GlobalAveragePooling, ImageClassifier, LinearClsHead)

from mmadder.datasets import CIFAR10Images

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(type=ClsDataPreprocessor, num_classes=10,
                           mean=[0.] * 3, std=[255.] * 3),
    backbone=dict(type=AdderResNet, depth=18, stem_channels=4,
                  base_channels=4, conv_cfg=conv_cfg),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=32,
              topk=(1, )))
loader.update(
    collate_fn=dict(type=default_collate), dataset=dict(
        type=CIFAR10Images, data_root='data', split='test',
        pipeline=[dict(type=PackInputs)]))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(type=Accuracy, topk=(1, ))
test_evaluator = val_evaluator
'''


def write_new_style(folder: Path, text: str,
                    conv_cfg: str = 'dict(type=AdderConv2d, weight_norm=AWN)',
                    more: str = '') -> Path:
    """Write DETECTOR or CLASSIFIER into a folder, and return its path."""
    (folder / 'runtime.py').write_text(RUNTIME)
    path = folder / 'new_style.py'
    path.write_text(text.replace('CONV_CFG', conv_cfg) + more)
    return path
