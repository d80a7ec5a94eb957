# The convolutional twin: all else equal, the norm of the logits too.
_base_ = './ann-awn-resnet20_1xb256_cifar10.py'
model = dict(backbone=dict(conv_cfg=None))
