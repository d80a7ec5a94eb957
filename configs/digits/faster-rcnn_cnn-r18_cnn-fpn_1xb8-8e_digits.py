# The convolutional twin: all else equal, norms and shortcuts of the neck too.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py'
model = dict(
    backbone=dict(
        conv_cfg=None,
        # Train configs/digits/cnn-resnet18_1xb32-5e_digits.py first.
        init_cfg=dict(
            checkpoint='work_dirs/cnn-resnet18_1xb32-5e_digits/epoch_5.pth')),
    neck=dict(conv_cfg=None))
