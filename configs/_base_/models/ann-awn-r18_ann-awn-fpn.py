# For detectors of MMDetection with a ResNet and an FPN: the adders that take
# their place. Variables, because no two bases of a config may set `model`.
adder_backbone = dict(
    type='AdderResNet',
    depth=18,
    out_indices=(0, 1, 2, 3),
    # Train configs/imagenet/ann-awn-resnet18_8xb32_in1k.py first.
    init_cfg=dict(
        type='Pretrained',
        checkpoint='work_dirs/ann-awn-resnet18_8xb32_in1k/epoch_150.pth',
        prefix='backbone.'))
adder_neck = dict(type='AdderFPN', in_channels=[64, 128, 256, 512])
awn_paramwise = dict(
    custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)})
