_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/mmadder.py'
]
model = dict(
    backbone=dict(
        _delete_=True,
        type='AdderResNet',
        depth=18,
        out_indices=(0, 1, 2, 3),
        # Train configs/imagenet/ann-awn-resnet18_8xb32_in1k.py first.
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/ann-awn-resnet18_8xb32_in1k/epoch_150.pth',
            prefix='backbone.')),
    neck=dict(type='AdderFPN', in_channels=[64, 128, 256, 512]))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))
