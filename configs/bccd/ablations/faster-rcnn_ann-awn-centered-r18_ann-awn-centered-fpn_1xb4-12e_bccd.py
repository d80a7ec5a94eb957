# Half the epochs, to compare with the ablations beside this one.
_base_ = ('../faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_'
          '1xb4-24e_bccd.py')
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
