_base_ = './ann-awn-centered-resnet20_1xb256_cifar10.py'
model = dict(backbone=dict(depth=32))
