# Local gradient scaling as in AdderNet's code.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-12e_bccd.py'
conv_cfg = dict(eta=0.2)
model = dict(
    backbone=dict(
        conv_cfg=conv_cfg,
        # Train the config of this name in configs/digits/ablations first.
        init_cfg=dict(
            checkpoint='work_dirs/ann-awn-resnet18_eta0.2_1xb32-5e_digits/'
            'epoch_5.pth')),
    neck=dict(conv_cfg=conv_cfg))
