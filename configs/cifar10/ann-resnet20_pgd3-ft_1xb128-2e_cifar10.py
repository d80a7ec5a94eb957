# AdderNet, fine-tuned on adversarial images: no weight normalization.
_base_ = './ann-awn-resnet20_pgd3-ft_1xb128-2e_cifar10.py'
load_from = 'weights/ann-resnet20_20e_cifar10.pth'
model = dict(backbone=dict(conv_cfg=dict(weight_norm=None)))
