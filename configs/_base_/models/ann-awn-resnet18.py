# ResNet-18 whose blocks are adders with adaptive weight normalization.
_base_ = 'mmpretrain::_base_/models/resnet18.py'
model = dict(backbone=dict(type='AdderResNet'))
