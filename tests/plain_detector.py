"""A plain MMDetection config with adders, and one training of it."""
import re

from mmengine.config import Config
from mmengine.runner import Runner

# Nothing of ours but custom_imports and conv_cfg.
PLAIN = '''
default_scope = 'mmdet'
custom_imports = dict(imports=['mmadder'], allow_failed_imports=False)
conv_cfg = dict(type='AdderConv2d', weight_norm='AWN')
norm_cfg = dict(type='BN')
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=4,
                  conv_cfg=conv_cfg, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=8,
              num_outs=5, conv_cfg=conv_cfg, norm_cfg=norm_cfg),
    bbox_head=dict(type='RetinaHead', num_classes=6, in_channels=8,
                   stacked_convs=1, feat_channels=8),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5,
                                 neg_iou_thr=0.4, min_pos_iou=0),
                   allowed_border=-1, pos_weight=-1))
train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='XMLDataset', data_root={root!r},
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('0', '1', '2', '3', '4', '5')),
        pipeline=[dict(type='LoadImageFromFile'),
                  dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='PackDetInputs')]))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500)]
default_hooks = dict(checkpoint=None)
'''
LINES = re.compile(r'Add to the config:\n\n(.*?)(?:\n\n|\n\d{4}/|\Z)', re.S)


def train(folder, voc, name, lines=''):
    """Train from the plain config plus lines; return (log, runner)."""
    plain = folder / 'plain.py'
    plain.write_text(PLAIN.replace('{root!r}', repr(str(voc))))
    path = folder / f'{folder.name}_{name}.py'
    path.write_text(f"_base_ = './plain.py'\n{lines}\n")
    cfg = Config.fromfile(path)
    cfg.work_dir = str(folder / name)
    runner = Runner.from_cfg(cfg)
    runner.train()
    log, = (folder / name).glob('*/*.log')
    return log.read_text(), runner
