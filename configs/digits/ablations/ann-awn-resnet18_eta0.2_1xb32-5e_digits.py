# Local gradient scaling as in AdderNet's code.
_base_ = '../ann-awn-resnet18_1xb32-5e_digits.py'
model = dict(
    backbone=dict(conv_cfg=dict(eta=0.2)))
