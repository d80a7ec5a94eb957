_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmadder'], allow_failed_imports=False)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='LossScaleHook'),
    dict(type='AdderClipGradHook'),
    dict(type='AdderCheckHook'),
    dict(type='CheckpointCheckHook')
]
model = dict(
    backbone=dict(type='AdderCSPDarknet'),
    neck=dict(conv_cfg=dict(type='AdderConv2d', weight_norm='AWN')))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))
