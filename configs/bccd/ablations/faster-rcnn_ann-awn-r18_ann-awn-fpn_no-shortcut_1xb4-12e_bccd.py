# No shortcuts around the 3x3 adders of the neck.
_base_ = './faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-12e_bccd.py'
model = dict(neck=dict(shortcut=False))
