_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../_base_/models/ann-awn-r18_ann-awn-fpn.py',
    '../_base_/mmadder.py',
]
model = dict(
    # The base normalizes for Caffe's weights.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(_delete_=True, **_base_.adder_backbone),
    neck=_base_.adder_neck)
# The base clips gradients: AdderClipGradHook keeps adders out of that.
optim_wrapper = dict(paramwise_cfg=_base_.awn_paramwise)
