# Crops of 48x48 pixels around handwritten digits, one folder per class. Made
# by tools/make_digits.py, from the same digits as the scenes' splits.
data_root = 'data/digits/'
classes = tuple('0123456789')
num_classes = len(classes)
input_shape = (48, 48)  # height and width, for tools/get_complexity.py

data_preprocessor = dict(
    num_classes=num_classes,
    mean=[123.675, 116.28, 103.53],  # as in detection
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
# No flip: it makes other digits, or none.
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(
    type='CheckedCustomDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    pipeline=pipeline)

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(data_prefix='crops/train', **dataset))
val_dataloader = dict(
    batch_size=100,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(data_prefix='crops/val', **dataset))
test_dataloader = dict(
    batch_size=100,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(data_prefix='crops/test', **dataset))

val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
