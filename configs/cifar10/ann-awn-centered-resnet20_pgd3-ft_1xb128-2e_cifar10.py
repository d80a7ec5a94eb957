# Centered adders, fine-tuned on adversarial images. They are adders from the
# first step on: the path from convolutions lies behind them.
_base_ = './ann-awn-resnet20_pgd3-ft_1xb128-2e_cifar10.py'
load_from = 'weights/ann-awn-centered-resnet20_20e_cifar10.pth'
model = dict(backbone=dict(conv_cfg=dict(center=True)))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0., end=0.)
]
