_base_ = [
    '../_base_/models/faster-rcnn_ann-awn-r18_ann-awn-fpn_w32.py',
    '../_base_/datasets/digit_scenes.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmdet_runtime.py',
]
max_epochs = 8
model = dict(
    backbone=dict(
        # Train configs/digits/ann-awn-resnet18_1xb32-5e_digits.py first.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ann-awn-resnet18_1xb32-5e_digits/'
            'epoch_5.pth',
            prefix='backbone.')),
    roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes)))

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
