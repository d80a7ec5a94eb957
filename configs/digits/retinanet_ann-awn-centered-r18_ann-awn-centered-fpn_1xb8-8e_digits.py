# A single stage: with it all of a detector, up to the tensors of its head, can
# be a network of integers. Ours, not the paper's.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/digit_scenes.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmdet_runtime.py',
]
max_epochs = 8
conv_cfg = dict(
    type='AdderConv2d',
    center=True,
    weight_norm=dict(type='AWN', upsilon=0.),
    eta=0.2)
model = dict(
    backbone=dict(
        _delete_=True,
        type='AdderResNet',
        depth=18,
        stem_channels=32,
        base_channels=32,
        out_indices=(0, 1, 2, 3),
        conv_cfg=conv_cfg,
        # Train configs/digits/ann-awn-centered-resnet18_1xb32-5e_digits.py.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ann-awn-centered-resnet18_1xb32-5e_digits/'
            'epoch_5.pth',
            prefix='backbone.')),
    neck=dict(
        _delete_=True,
        type='AdderFPN',
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        num_outs=5,
        conv_cfg=conv_cfg),
    bbox_head=dict(
        num_classes=_base_.num_classes,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # The levels of the neck begin at stride 4; objects of 16 pixels.
        anchor_generator=dict(strides=[4, 8, 16, 32, 64])),
    test_cfg=dict(nms_pre=300))
optim_wrapper = dict(optimizer=dict(lr=0.01))

train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
