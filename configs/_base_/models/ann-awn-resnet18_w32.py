# Half as wide, to train on two cores.
_base_ = ['./ann-awn-resnet18.py', './adder_short_schedule.py']
model = dict(
    backbone=dict(
        stem_channels=32, base_channels=32, conv_cfg=_base_.adder_cfg),
    head=dict(in_channels=256))
