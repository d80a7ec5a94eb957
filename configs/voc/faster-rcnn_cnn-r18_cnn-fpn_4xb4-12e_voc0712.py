# The convolutional twin: all else equal, norms and shortcuts of the neck too.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
model = dict(
    backbone=dict(
        conv_cfg=None,
        # Train configs/imagenet/cnn-resnet18_8xb32_in1k.py first.
        init_cfg=dict(
            checkpoint='work_dirs/cnn-resnet18_8xb32_in1k/epoch_150.pth')),
    neck=dict(conv_cfg=None))
