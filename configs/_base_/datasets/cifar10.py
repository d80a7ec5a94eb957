# CIFAR-10, pictures of 32x32: 45,000 to train, 5,000 held out to validate,
# 10,000 to test. data/cifar10 has the published cifar-10-batches-py, or
# {train,test}/<class>/*.{jpg,png}. A final training on all 50,000 picks
# nothing: --no-validate with train_dataloader.dataset.split=trainval.
data_root = 'data/cifar10/'
num_classes = 10

data_preprocessor = dict(
    num_classes=num_classes,
    # AdderNet's, times 255: (0.4914, 0.4822, 0.4465), (0.2023, 0.1994,
    # 0.2010); the pictures are RGB already.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False)
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10Images',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=100,
    num_workers=2,
    persistent_workers=True,
    # Robust inference takes statistics of the batch: classes must be mixed.
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10Images',
        data_root=data_root,
        split='val',
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = dict(
    val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))

val_evaluator = [
    dict(type='Accuracy', topk=(1, )),
    dict(type='CrossEntropyMetric'),
]
test_evaluator = val_evaluator
