# No shortcuts around the 3x3 adders of the neck.
_base_ = '../faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
model = dict(neck=dict(shortcut=False))
