# ResNet-50 whose blocks are adders with adaptive weight normalization.
_base_ = 'mmpretrain::_base_/models/resnet50.py'
model = dict(backbone=dict(type='AdderResNet'))
