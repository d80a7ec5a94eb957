_base_ = [
    '../_base_/models/ann-awn-resnet20_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10_400e.py',
    '../_base_/mmpretrain_runtime.py',
]
# The last checkpoint counts, as in the paper: a final training on all pictures
# has nothing that could choose another.
default_hooks = dict(checkpoint=dict(save_best=None))
