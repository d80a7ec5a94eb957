# Faster R-CNN with adder backbone and neck; RPN and RoI head stay
# convolutional, as in the paper.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(
        # The base freezes batch norms and loads convolutional weights. Adder
        # features have a large variance: their norms must keep learning
        # (arXiv:2112.13608), which is AdderResNet's default.
        _delete_=True,
        type='AdderResNet',
        depth=18,
        out_indices=(0, 1, 2, 3)),
    neck=dict(type='AdderFPN', in_channels=[64, 128, 256, 512]))
