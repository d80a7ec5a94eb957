# Ours: the trained network, fine-tuned on adversarial images, PGD of three
# steps within 8/255 (arXiv:1706.06083). Steps take three times as long.
_base_ = './ann-awn-resnet20_1xb256_cifar10.py'
load_from = 'weights/ann-awn-resnet20_20e_cifar10.pth'
max_epochs = 2
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = dict(T_max=max_epochs, convert_to_iter_based=True)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='AdversarialTrainingHook', steps=3)
]
