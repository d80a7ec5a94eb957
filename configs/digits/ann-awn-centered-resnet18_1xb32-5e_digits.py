# Ours, not the paper's: outputs are centered over the filters, and the layers
# begin as convolutions. With that the paper's own shift 0 and eta 0.2 do.
_base_ = './ann-awn-resnet18_1xb32-5e_digits.py'
model = dict(
    backbone=dict(
        conv_cfg=dict(center=True, weight_norm=dict(upsilon=0.), eta=0.2)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0., end=0.6)
]
