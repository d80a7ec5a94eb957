# Ours, not the paper's: outputs are centered over the filters, and the layers
# begin as convolutions.
_base_ = './ann-awn-resnet18_8xb32_in1k.py'
model = dict(
    backbone=dict(
        conv_cfg=dict(type='AdderConv2d', weight_norm='AWN', center=True)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0., end=0.6)
]
