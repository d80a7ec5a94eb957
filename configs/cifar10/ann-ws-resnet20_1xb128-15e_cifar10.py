# Weight standardization: no trained scale and shift.
_base_ = './ann-awn-resnet20_1xb128-15e_cifar10.py'
model = dict(backbone=dict(conv_cfg=dict(weight_norm='WS')))
