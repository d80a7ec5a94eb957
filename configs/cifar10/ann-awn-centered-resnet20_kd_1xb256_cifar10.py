# Centered adders (ours) that also learn from the logits of their convolutional
# twin (arXiv:1503.02531). To pick settings, give a teacher that has not seen
# the held-out pictures.
_base_ = './ann-awn-centered-resnet20_1xb256_cifar10.py'
model = dict(
    type='DistilledClassifier',
    teacher_config='configs/cifar10/cnn-resnet20_1xb256_cifar10.py',
    teacher_ckpt='weights/cnn-resnet20_20e_cifar10.pth')
