# The paper's start and AdderNet's gradient scaling.
_base_ = '../ann-awn-resnet18_1xb32-5e_digits.py'
model = dict(
    backbone=dict(conv_cfg=dict(weight_norm=dict(upsilon=0.), eta=0.2)))
