_base_ = ['mmpretrain::_base_/default_runtime.py', './mmadder.py']
default_hooks = dict(
    logger=dict(interval=20),
    # The last two: a run killed while it writes one resumes from the other.
    checkpoint=dict(
        max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'))
randomness = dict(seed=0)
