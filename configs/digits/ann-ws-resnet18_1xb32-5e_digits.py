# Weight standardization: no trained scale and shift, and none at the start.
_base_ = './ann-awn-resnet18_1xb32-5e_digits.py'
model = dict(backbone=dict(conv_cfg=dict(weight_norm='WS')))
