# Weight standardization: no trained scale and shift.
_base_ = './ann-awn-resnet20_1xb256_cifar10.py'
model = dict(backbone=dict(conv_cfg=dict(weight_norm='WS')))
