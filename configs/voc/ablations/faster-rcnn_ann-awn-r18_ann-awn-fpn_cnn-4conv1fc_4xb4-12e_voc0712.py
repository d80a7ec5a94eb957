# A box head of four 3x3 convolutions with norm and one linear layer, to
# compare with the same head of adders.
_base_ = '../faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            norm_cfg=dict(type='BN', requires_grad=True))))
