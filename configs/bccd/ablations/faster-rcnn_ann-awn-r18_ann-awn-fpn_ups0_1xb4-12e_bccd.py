# Weights start around 0, as in the paper.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-12e_bccd.py'
conv_cfg = dict(weight_norm=dict(upsilon=0.))
model = dict(
    backbone=dict(
        conv_cfg=conv_cfg,
        # Train the config of this name in configs/digits/ablations first.
        init_cfg=dict(
            checkpoint='work_dirs/ann-awn-resnet18_ups0_1xb32-5e_digits/'
            'epoch_5.pth')),
    neck=dict(conv_cfg=conv_cfg))
