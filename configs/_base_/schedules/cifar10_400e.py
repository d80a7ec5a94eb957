# "Towards Stable and Robust AdderNets", section 5.1: SGD, 400 epochs, cosine
# per epoch.
max_epochs = 400
optim_wrapper = dict(
    type='OptimWrapper',
    # Weight decay reaches norms and adders too, as in AdderNet's code.
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(
        custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))
param_scheduler = dict(type='CosineAnnealingLR', T_max=max_epochs)

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
