# Scenes of handwritten digits in PASCAL VOC format. Made by
# tools/make_digits.py.
data_root = 'data/digits/'
classes = tuple('0123456789')
num_classes = len(classes)
input_shape = (128, 128)  # height and width, for tools/get_complexity.py

dataset = dict(
    type='CheckedXMLDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(sub_data_root='VOC2007/'))
# Pictures keep their size, and are not flipped: a flip makes other digits, or
# none.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.),  # for the meta key
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/train.txt',
        filter_cfg=dict(filter_empty_gt=True, bbox_min_size=2),
        pipeline=train_pipeline,
        **dataset))
val_dataloader = dict(
    batch_size=8,  # all of one size
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/val.txt',
        test_mode=True,
        pipeline=test_pipeline,
        **dataset))
test_dataloader = dict(
    batch_size=8,  # all of one size
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/test.txt',
        test_mode=True,
        pipeline=test_pipeline,
        **dataset))

val_evaluator = dict(
    type='VOCMetric', metric='mAP', iou_thrs=0.5, eval_mode='11points')
test_evaluator = val_evaluator
