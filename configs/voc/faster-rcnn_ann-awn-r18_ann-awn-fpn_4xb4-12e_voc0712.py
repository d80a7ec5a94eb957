# "Towards Stable and Robust AdderNets", section 5.3 and Table 2, on 4 GPUs.
_base_ = [
    '../_base_/models/faster-rcnn_ann-awn-r18_ann-awn-fpn.py',
    '../_base_/datasets/voc0712.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmdet_runtime.py',
]
max_epochs = 12
model = dict(
    backbone=dict(
        # Train configs/imagenet/ann-awn-resnet18_8xb32_in1k.py first.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ann-awn-resnet18_8xb32_in1k/epoch_150.pth',
            prefix='backbone.')),
    roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes)))

optim_wrapper = dict(
    optimizer=dict(lr=0.008),
    # Weight decay reaches norms too, as in MMDetection's own schedules.
    paramwise_cfg=dict(norm_decay_mult=1.))
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=16, enable=False)  # 4 GPUs x 4 pictures
