# From a whole convolutional detector with MMDetection's FPN, trained by
# faster-rcnn_cnn-r18_mmdet-fpn_1xb8-4e_digits.py and converted with
# --source cnn --calibrate 8.
_base_ = ('../faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_'
          '1xb8-8e_digits.py')
max_epochs = 4
model = dict(backbone=dict(init_cfg=None), neck=dict(shortcut=False))
load_from = ('work_dirs/faster-rcnn_cnn-r18_mmdet-fpn_1xb8-4e_digits/'
             'epoch_4_as_adder.pth')
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0., end=0.5)
]
