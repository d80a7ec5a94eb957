# The convolutional twin: all else equal.
_base_ = './ann-awn-resnet18_8xb32_in1k.py'
model = dict(backbone=dict(conv_cfg=None))
