# Ours, not the paper's: outputs are centered over the filters.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
conv_cfg = dict(type='AdderConv2d', weight_norm='AWN', center=True)
model = dict(
    backbone=dict(
        conv_cfg=conv_cfg,
        # Train configs/imagenet/ann-awn-centered-resnet18_8xb32_in1k.py first.
        init_cfg=dict(
            checkpoint='work_dirs/ann-awn-centered-resnet18_8xb32_in1k/'
            'epoch_150.pth')),
    neck=dict(conv_cfg=conv_cfg))
