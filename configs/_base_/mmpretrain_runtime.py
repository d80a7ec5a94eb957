_base_ = ['mmpretrain::_base_/default_runtime.py', './mmadder.py']
default_hooks = dict(
    logger=dict(interval=20),
    # The last two: a run killed while it writes one resumes from the other.
    checkpoint=dict(
        max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'))
# The base marks it with its scope, which MMPretrain's own scripts that build
# it by hand do not understand.
visualizer = dict(
    _delete_=True,
    type='UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
