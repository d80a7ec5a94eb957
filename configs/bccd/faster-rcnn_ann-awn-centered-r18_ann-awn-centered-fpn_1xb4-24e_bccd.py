# Ours, not the paper's: centered outputs, with the paper's own shift 0 and eta
# 0.2. The backbone began as a convolutional network, the neck begins as it is.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-24e_bccd.py'
conv_cfg = dict(center=True, weight_norm=dict(upsilon=0.), eta=0.2)
model = dict(
    backbone=dict(
        conv_cfg=conv_cfg,
        # Train configs/digits/ann-awn-centered-resnet18_1xb32-5e_digits.py.
        init_cfg=dict(
            checkpoint='work_dirs/ann-awn-centered-resnet18_1xb32-5e_digits/'
            'epoch_5.pth')),
    neck=dict(conv_cfg=conv_cfg))
