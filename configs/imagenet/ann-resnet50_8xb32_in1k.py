# AdderNet: no weight normalization.
_base_ = './ann-awn-resnet50_8xb32_in1k.py'
model = dict(
    backbone=dict(conv_cfg=dict(type='AdderConv2d', weight_norm=None)))
