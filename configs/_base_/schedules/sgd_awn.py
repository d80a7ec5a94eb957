# Each config adds its learning rate, epochs and warmup. With clip_grad,
# AdderClipGradHook of ../mmadder.py leaves adders out.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        # Scale and shift of adaptive weight normalization learn 1e-5 times as
        # fast ("Towards Stable and Robust AdderNets", section 5.1).
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
