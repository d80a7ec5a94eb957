_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/models/ann-awn-r18_ann-awn-fpn.py',
    '../_base_/mmadder.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.adder_backbone),
    neck=_base_.adder_neck)
optim_wrapper = dict(paramwise_cfg=_base_.awn_paramwise)
