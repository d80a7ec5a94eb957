# The convolutional twin: all else equal, norms and shortcuts of the neck too.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-12e_bccd.py'
model = dict(backbone=dict(conv_cfg=None), neck=dict(conv_cfg=None))
