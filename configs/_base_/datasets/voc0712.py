# PASCAL VOC: training on trainval of 2007 and 2012 (5,011 + 11,540 pictures),
# evaluation on test of 2007 (4,952). VOCdevkit is to lie at data/VOCdevkit.
data_root = 'data/VOCdevkit/'
classes = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car',
           'cat', 'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike',
           'person', 'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor')
num_classes = len(classes)
scale = (1000, 600)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # After Resize: boxes stay those of the file.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]

# MMDetection's base repeats the set three times, which makes 36 passes of 12
# epochs, and ignores boxes below 32 pixels. Here an epoch is one pass, and
# all boxes but difficult ones are targets.
train_set = dict(
    type='CheckedXMLDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=train_pipeline)
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                ann_file='VOC2007/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2007/'),
                **train_set),
            dict(
                ann_file='VOC2012/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2012/'),
                **train_set)
        ]))
val_dataloader = dict(
    # One picture at a time: padding to the largest of a batch would change
    # what adders see at the border.
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CheckedXMLDataset',
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

# The measure of VOC2007, then that of VOC2012: without prefixes of their own
# the second would overwrite the first.
val_evaluator = [
    dict(
        type='VOCMetric',
        metric='mAP',
        iou_thrs=0.5,
        eval_mode='11points',
        prefix='pascal_voc'),
    dict(
        type='VOCMetric',
        metric='mAP',
        iou_thrs=0.5,
        eval_mode='area',
        prefix='pascal_voc_area')
]
test_evaluator = val_evaluator
