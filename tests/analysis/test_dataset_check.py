"""What is said of a data set, against what was written into it."""
import json
import re

import cv2
import numpy as np
import pytest
from conftest import CLASSES, annotate
from mmengine.config import Config

from mmadder.analysis.dataset_check import (
    describe,
    draw_sheet,
    read_splits,
    shared_pictures,
)
from mmadder.cli.class_count import fit_classes

ALL = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def detector(root, kind='CheckedXMLDataset', steps=(), **splits):
    """A config of pictures of 64x64; test is val."""
    def loader(split):
        return dict(dataset=dict(dict(
            type=kind, data_root=str(root), metainfo=dict(classes=CLASSES[:6]),
            data_prefix=dict(sub_data_root=''),
            ann_file=f'ImageSets/Main/{split}.txt', pipeline=list(steps)),
            **splits))
    return Config(dict(
        default_scope='mmdet', model=dict(),
        train_dataloader=dict(dataset=dict(
            type='RepeatDataset', times=3, **loader('train'))),
        val_dataloader=loader('val'), test_dataloader=loader('val')))


def test_splits_once_with_counts_and_sizes(voc):
    (voc / 'Annotations' / 'train_0.xml').write_text(
        annotate('1', (11, 11, 21, 51)))
    cfg = detector(voc)
    train, val = read_splits(cfg, ALL)
    assert train.name == 'train_dataloader'
    assert val.name == 'val_dataloader, test_dataloader'
    assert train.source == str(voc / 'ImageSets/Main/train.txt')
    assert [len(train.samples), len(val.samples)] == [6, 3]
    assert train.counts() == [('0', 0, 0), ('1', 2, 2)] + [
        (name, 1, 1) for name in '2345']
    assert train.boxes()[0].tolist() == [10, 40]
    assert not train.problems
    assert train.findings == ['classes without any example: 0']
    assert describe(train, cfg)[0] == 'sizes of pictures: 64x64 (6)'


def test_every_fault_is_named(voc):
    """Not only the first few, and each split for itself."""
    for name in ('train_0', 'train_1', 'train_2'):
        (voc / 'JPEGImages' / f'{name}.jpg').unlink()
    for name in ('train_3', 'train_4', 'train_5'):
        (voc / 'Annotations' / f'{name}.xml').write_text('<a')
    (voc / 'ImageSets/Main/val.txt').unlink()
    train, val = read_splits(detector(voc), ALL)
    assert len(train.problems) == 6 and not train.samples
    for i, problem in enumerate(train.problems):
        assert f'train_{i}' in problem
    problem, = val.problems
    assert 'val.txt' in problem and 'does not exist' in problem


def test_what_may_spoil_a_training_is_named_in_full(voc):
    names = [f'train_{i}' for i in range(30)]
    (voc / 'ImageSets/Main/train.txt').write_text('\n'.join(names))
    picture = (voc / 'JPEGImages/train_0.jpg').read_bytes()
    for name in names:
        (voc / 'JPEGImages' / f'{name}.jpg').write_bytes(picture)
        (voc / 'Annotations' / f'{name}.xml').write_text(
            annotate('0', (40, 40, 90, 60)))
    train, _ = read_splits(detector(voc), ALL)
    outside, _ = train.findings
    assert 'reach outside' in outside
    assert all(f'{name}.xml' in outside for name in names)


@pytest.mark.parametrize('steps, seen', [
    ([], '20, 20, 20'),
    ([dict(type='Resize', scale=(32, 32), keep_ratio=True)], '10, 10, 10'),
    ([dict(type='Resize', scale=(128, 32))], '20, 20, 20'),
    ([dict(type='RandomResize', scale=[(32, 32), (64, 64)])], None)])
def test_boxes_beside_anchors(voc, steps, seen):
    for path in (voc / 'Annotations').glob('*.xml'):
        path.write_text(annotate('0', (11, 11, 31, 31)))
    cfg = detector(voc, steps=steps)
    cfg.model = dict(rpn_head=dict(anchor_generator=dict(
        type='AnchorGenerator', scales=[8], ratios=[1.], strides=[8, 16])))
    train, _ = read_splits(cfg, ALL)
    text = '\n'.join(describe(train, cfg))
    assert ': 20, 20, 20 pixels' in text
    if seen is None:
        assert 'resized' not in text
        return
    assert f'resized for the model: {seen}; anchors: 64 to 128' in text
    assert '100% of the boxes are smaller than half the least anchor' in text
    cfg.model.rpn_head.anchor_generator.update(scales=[1])
    assert ('larger than twice the largest' in '\n'.join(
        describe(train, cfg))) == (seen[:2] == '40')


def test_other_data_sets_are_looked_at_too(voc):
    """MMDetection's own know nothing of sizes, or of pictures at all."""
    (voc / 'JPEGImages/val_1.jpg').write_bytes(b'')
    cv2.imwrite(str(voc / 'JPEGImages/val_0.jpg'),
                np.zeros((32, 64, 3), np.uint8))
    content = dict(
        categories=[dict(id=i, name=name)
                    for i, name in enumerate(CLASSES[:6])],
        images=[dict(id=i, file_name=f'val_{i}.jpg', width=64, height=64)
                for i in range(3)],
        annotations=[dict(id=i, image_id=i, category_id=2, area=100,
                          iscrowd=0, bbox=[10, 10, 80, 10])
                     for i in range(3)])
    (voc / 'val.json').write_text(json.dumps(content))
    split, = read_splits(detector(
        voc, kind='CocoDataset', ann_file='val.json',
        data_prefix=dict(img='JPEGImages/')), ALL[1:])
    assert len(split.samples) == 2
    assert split.samples[1].boxes.tolist() == [[10, 10, 90, 20]]
    problem, = split.problems
    assert 'val_1.jpg is empty' in problem
    assert 'another size' in split.findings[0]
    assert 'val_0.jpg (64x32, annotated as 64x64)' in split.findings[0]
    assert '(kept): 2, in val_0.jpg, val_2.jpg' in split.findings[1]


@pytest.mark.parametrize('change, message', [
    (dict(area=None), "KeyError 'area'"), (dict(bbox=[1, 2]), 'ValueError'),
    (dict(bbox='none'), 'ValueError|TypeError')])
def test_entries_that_a_data_set_cannot_read(voc, change, message):
    annotation = dict(id=0, image_id=0, category_id=0, area=9, iscrowd=0,
                      bbox=[1, 1, 3, 3]) | change
    (voc / 'train.json').write_text(json.dumps(dict(
        categories=[dict(id=0, name='0')], annotations=[
            {key: value for key, value in annotation.items()
             if value is not None}],
        images=[dict(id=0, file_name='train_0.jpg', width=64, height=64)])))
    cfg = detector(voc, kind='CocoDataset', ann_file='train.json',
                   data_prefix=dict(img='JPEGImages/'))
    problem, = next(read_splits(cfg, ALL)).problems
    assert re.search(f'train.json has an entry that CocoDataset cannot read: '
                     f'({message})', problem)


@pytest.mark.parametrize('images, message', [
    (0, 'no picture is listed in'), (2, 'none of 2 pictures in .* is left')])
def test_nothing_to_train_with(voc, images, message):
    (voc / 'train.json').write_text(json.dumps(dict(
        categories=[dict(id=0, name='0')], annotations=[],
        images=[dict(id=i, file_name=f'train_{i}.jpg', width=64, height=64)
                for i in range(images)])))
    cfg = detector(voc, kind='CocoDataset', ann_file='train.json',
                   data_prefix=dict(img='JPEGImages/'),
                   filter_cfg=dict(filter_empty_gt=True))
    problem, = next(read_splits(cfg, ALL)).problems
    assert re.search(message, problem)


def test_classes_without_names(image_folder):
    """Of labels in a file: they are numbers."""
    (image_folder / 'list.txt').write_text(
        'ant/0.jpg 0\nbee/0.jpg 2\nbee/1.jpg 2')
    split, = read_splits(Config(dict(
        default_scope='mmpretrain', train_dataloader=dict(dataset=dict(
            type='CustomDataset', data_root=str(image_folder),
            data_prefix='train', ann_file='list.txt')))), ALL)
    assert split.counts() == [('0', 1, 1), ('1', 0, 0), ('2', 2, 2)]
    assert draw_sheet(split, 2) is not None


def test_folders_of_pictures(image_folder):
    (image_folder / 'train/bee/0.jpg').write_bytes(b'')
    (image_folder / 'val/.cache').mkdir()
    cfg = Config(dict(
        default_scope='mmpretrain', model=dict(head=dict(num_classes=1000)),
        train_dataloader=dict(dataset=dict(
            type='CheckedImageNet', data_root=str(image_folder),
            split='train')),
        val_dataloader=dict(dataset=dict(
            type='CheckedCustomDataset', data_root=str(image_folder),
            data_prefix='val'))))
    fit_classes(cfg, ALL)  # as every command does
    train, val = read_splits(cfg, ALL)
    assert train.counts() == [
        ('ant', 3, 3), ('bee', 2, 2), ('cat', 3, 3), ('dog', 3, 3)]
    problem, = train.problems
    assert 'bee/0.jpg is empty' in problem
    assert describe(train, cfg) == ['sizes of pictures: 48x40 (11)']
    assert not val.problems and len(val.samples) == 12
    assert draw_sheet(val, 5).shape == (2 * 256 + 8, 4 * 307 + 3 * 8, 3)


def test_sheet_has_the_boxes(voc):
    for path in (voc / 'Annotations').glob('*.xml'):
        path.write_text(annotate('0', (33, 33, 61, 61)))
    split, _ = read_splits(detector(voc), ALL)
    sheet = draw_sheet(split, 3)
    assert sheet.shape == (256, 3 * 256 + 2 * 8, 3)
    for left in (0, 264, 528):  # the right edge, at x = 60 of 64
        column = sheet[150:230, left + 240].mean(0)
        assert column[0] < 140 and (column[1:] > 200).all()
    damaged = voc / 'JPEGImages/train_0.jpg'
    damaged.write_bytes(b'nothing')
    assert draw_sheet(split, 3).shape == (256, 2 * 256 + 8, 3)
    assert 'train_0.jpg cannot be decoded' in split.problems[0]


def test_pictures_of_training_that_are_validated_with(voc):
    path = voc / 'ImageSets/Main/val.txt'
    splits = list(read_splits(detector(voc), ALL))
    assert shared_pictures(splits) == []
    path.write_text('val_0\ntrain_1\n')
    said, = shared_pictures(list(read_splits(detector(voc), ALL)))
    assert said.endswith('1 pictures in common: train_1.jpg')
