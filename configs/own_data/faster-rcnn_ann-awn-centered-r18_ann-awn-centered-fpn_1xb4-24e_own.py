_base_ = [
    '../_base_/models/faster-rcnn_ann-awn-r18_ann-awn-fpn_w32.py',
    '../_base_/datasets/own_data.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmdet_runtime.py',
]
max_epochs = 24
conv_cfg = dict(center=True, weight_norm=dict(upsilon=0.), eta=0.2)
model = dict(
    backbone=dict(
        conv_cfg=conv_cfg,
        # What `make quickstart` leaves; a few hundred pictures are few to
        # start from random weights.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/quickstart/pretrain/epoch_5.pth',
            prefix='backbone.')),
    neck=dict(conv_cfg=conv_cfg),
    rpn_head=dict(anchor_generator=dict(scales=[4, 8])),  # 16 to 512 pixels
    # As many as the data have: tools/train.py and test.py set it, and the
    # config that a training writes into its work directory has it.
    roi_head=dict(bbox_head=dict(num_classes=None)))

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
