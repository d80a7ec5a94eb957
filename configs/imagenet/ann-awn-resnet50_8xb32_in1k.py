_base_ = [
    '../_base_/models/ann-awn-resnet50.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_150e.py',
    '../_base_/mmpretrain_runtime.py',
]
# Its validation set is what results are reported on: the last checkpoint
# counts, the best one would be chosen on that set.
default_hooks = dict(
    logger=dict(interval=100), checkpoint=dict(save_best=None))
