# The convolutional twin on adversarial images: PGD of three steps within
# 8/255 (arXiv:1706.06083). Steps take four times as long.
_base_ = './cnn-resnet20_1xb128-15e_cifar10.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AdversarialTrainingHook', steps=3)
]
