_base_ = [
    '../_base_/models/ann-awn-resnet20_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10_400e.py',
    '../_base_/mmpretrain_runtime.py',
]
# The paper tests after every epoch, on the test set. The last checkpoint
# counts: the best one would be chosen on that set.
default_hooks = dict(checkpoint=dict(save_best=None))
