# AdderNet's network for CIFAR: first convolution and classifier multiply, all
# others are adders, and the logits are normalized.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='AdderResNetCIFAR',
        depth=20,
        conv_cfg=dict(type='AdderConv2d', weight_norm='AWN')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='BNLogitsHead', num_classes=10, in_channels=64))
