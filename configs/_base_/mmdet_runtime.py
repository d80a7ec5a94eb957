_base_ = ['mmdet::_base_/default_runtime.py', './mmadder.py']
default_hooks = dict(
    logger=dict(interval=20),
    # The last two: a run killed while it writes one resumes from the other.
    checkpoint=dict(
        max_keep_ckpts=2, save_best='pascal_voc/mAP', rule='greater'),
    # WORK_DIR/TIMESTAMP/report/index.html; not among custom_hooks, which a
    # config replaces as a whole.
    report=dict(type='DetectionReportHook'))
# The base marks it with its scope, which MMDetection's own scripts that build
# it by hand do not understand.
visualizer = dict(
    _delete_=True,
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer')
randomness = dict(seed=0)
