# Digit crops: trains the backbone of the detection config beside this one.
_base_ = [
    '../_base_/models/ann-awn-resnet18_w32.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/sgd_awn.py',
    '../_base_/mmpretrain_runtime.py',
]
max_epochs = 5
model = dict(head=dict(num_classes=_base_.num_classes, topk=(1, )))

optim_wrapper = dict(optimizer=dict(lr=0.03))
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=20),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
