# From a trained convolutional backbone, without pretraining of adders: the
# whole detector begins as a convolutional network.
_base_ = ('./faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_'
          '1xb4-24e_bccd.py')
model = dict(
    backbone=dict(
        # Train configs/digits/cnn-resnet18_1xb32-5e_digits.py, and convert its
        # checkpoint: see README.md beside this file.
        init_cfg=dict(
            checkpoint='work_dirs/cnn-resnet18_1xb32-5e_digits/'
            'epoch_5_as_adder.pth')))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0., end=0.5)
]
