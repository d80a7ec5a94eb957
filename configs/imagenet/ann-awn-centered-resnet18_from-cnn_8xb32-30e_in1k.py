# From a trained convolutional network, in a fifth of the epochs. Convert its
# checkpoint first: see README.md beside this file.
_base_ = './ann-awn-centered-resnet18_8xb32_in1k.py'
max_epochs = 30
load_from = 'work_dirs/resnet18_as_adder.pth'
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = dict(T_max=max_epochs)
