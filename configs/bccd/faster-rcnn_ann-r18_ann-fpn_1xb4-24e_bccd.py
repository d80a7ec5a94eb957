# Adders without weight normalization: all else equal.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-24e_bccd.py'
model = dict(
    backbone=dict(
        conv_cfg=dict(weight_norm=None),
        # Train configs/digits/ann-resnet18_1xb32-5e_digits.py first.
        init_cfg=dict(
            checkpoint='work_dirs/ann-resnet18_1xb32-5e_digits/epoch_5.pth')),
    neck=dict(conv_cfg=dict(weight_norm=None)))
