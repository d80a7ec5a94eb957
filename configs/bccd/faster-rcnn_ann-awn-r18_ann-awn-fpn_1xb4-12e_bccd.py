# From random weights: 12 epochs take two cores well under an hour.
_base_ = [
    '../_base_/models/faster-rcnn_ann-awn-r18_ann-awn-fpn_w32.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmdet_runtime.py',
]
max_epochs = 12
model = dict(roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes)))

optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
