# A second, bottom-up path in the neck.
_base_ = '../faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
model = dict(neck=dict(type='AdderPAFPN'))
