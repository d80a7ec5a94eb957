# MMDetection's own FPN, without norms and shortcuts, and half the epochs: the
# detector that the from-cnn configs beside this one begin with.
_base_ = '../faster-rcnn_cnn-r18_cnn-fpn_1xb8-8e_digits.py'
max_epochs = 4
model = dict(
    neck=dict(
        _delete_=True,
        type='FPN',
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        num_outs=5))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        convert_to_iter_based=True)
]
