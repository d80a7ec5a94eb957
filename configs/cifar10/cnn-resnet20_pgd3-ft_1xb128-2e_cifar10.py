# The convolutional twin, fine-tuned on adversarial images, all else equal.
_base_ = './ann-awn-resnet20_pgd3-ft_1xb128-2e_cifar10.py'
load_from = 'weights/cnn-resnet20_20e_cifar10.pth'
model = dict(backbone=dict(conv_cfg=None))
