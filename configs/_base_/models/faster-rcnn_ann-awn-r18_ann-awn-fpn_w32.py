# Half as wide a backbone, a quarter of neck and heads, fewer proposals, and
# smaller objects: to train on two cores.
_base_ = [
    './faster-rcnn_ann-awn-r18_ann-awn-fpn.py', './adder_short_schedule.py'
]
rpn_proposal = dict(nms_pre=300, max_per_img=100)
model = dict(
    backbone=dict(
        stem_channels=32, base_channels=32, conv_cfg=_base_.adder_cfg),
    neck=dict(
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        conv_cfg=_base_.adder_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4])),  # 16 to 256 pixels
    roi_head=dict(
        # Objects below 56 pixels are pooled from stride 4.
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=rpn_proposal,
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=rpn_proposal))
