# The convolutional twin: all else equal, the norm of the logits too.
_base_ = './ann-awn-resnet20_1xb128-15e_cifar10.py'
model = dict(backbone=dict(conv_cfg=None))
