# Straight from a convolutional backbone trained on ImageNet: no adders need
# to be pretrained. The whole detector begins as a convolutional network.
_base_ = ('./faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_'
          '4xb4-12e_voc0712.py')
model = dict(
    backbone=dict(
        # A converted checkpoint: see README.md beside this file.
        init_cfg=dict(checkpoint='work_dirs/resnet18_as_adder.pth')))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AnnealingHook', start=0.0, end=0.5)
]
