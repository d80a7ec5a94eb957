# PyTorch's ImageNet example, 150 epochs and cosine per epoch, as AdderNet's
# authors say; "Towards Stable and Robust AdderNets" names no recipe.
max_epochs = 150
optim_wrapper = dict(
    type='OptimWrapper',
    # Weight decay reaches norms and adders too, as in that example.
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs)

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(base_batch_size=256)
