_base_ = ['mmdet::_base_/default_runtime.py', './mmadder.py']
default_hooks = dict(
    logger=dict(interval=20),
    # The last two: a run killed while it writes one resumes from the other.
    checkpoint=dict(
        max_keep_ckpts=2, save_best='pascal_voc/mAP', rule='greater'),
    # WORK_DIR/TIMESTAMP/report/index.html; not among custom_hooks, which a
    # config replaces as a whole.
    report=dict(type='DetectionReportHook'))
# The base names the visualizer: a second run in one process would write its
# curves into the first one's directory.
visualizer = dict(
    _delete_=True,
    type='DetLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0)
