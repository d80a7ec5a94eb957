import shutil

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope

from mmadder.datasets import class_folders
from mmadder.errors import InputError

KINDS = ('CustomDataset', 'ImageNet')


def build(kind, root, **kwargs):
    where = dict(data_root=str(root), split='train') \
        if kind.endswith('ImageNet') else dict(data_prefix=f'{root}/train')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(dict(
            dict(type=kind, pipeline=[], **where,
                 metainfo=dict(classes=('ant', 'bee', 'cat', 'dog'))),
            **kwargs))


def samples(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


@pytest.mark.parametrize('kind', KINDS)
def test_sound_data_gives_the_samples_of_mmpretrain(image_folder, kind):
    expected = samples(build(f'mmpretrain.{kind}', image_folder))
    assert samples(build(f'Checked{kind}', image_folder)) == expected
    assert len(expected) == 12


@pytest.mark.parametrize('kind', KINDS)
def test_other_folders_move_no_label(image_folder, kind):
    expected = samples(build(f'mmpretrain.{kind}', image_folder))
    train = image_folder / 'train'
    shutil.copytree(train / 'cat', train / '.ipynb_checkpoints')
    shutil.copytree(train / 'cat', train / '__MACOSX')
    (train / 'aaa' / 'nested').mkdir(parents=True)
    (train / 'readme.txt').touch()
    assert samples(build(f'Checked{kind}', image_folder)) == expected
    assert class_folders(train) == (
        ['ant', 'bee', 'cat', 'dog'],
        ['.ipynb_checkpoints', '__MACOSX', 'aaa'])


def test_names_of_folders_are_the_classes(image_folder):
    dataset = build('CheckedCustomDataset', image_folder, metainfo=None)
    assert dataset.metainfo['classes'] == ('ant', 'bee', 'cat', 'dog')


def test_another_number_of_classes(image_folder):
    with pytest.raises(InputError, match=r'has 4 classes \(ant, bee, cat, '
                       r'dog\), the config names 1 \(ant\)'):
        build('CheckedCustomDataset', image_folder,
              metainfo=dict(classes=('ant', )))


def test_no_class(image_folder, tmp_path):
    (tmp_path / 'other' / 'train' / 'empty').mkdir(parents=True)
    with pytest.raises(InputError, match='has no folder with pictures'):
        build('CheckedImageNet', tmp_path / 'other')


def test_damaged_picture_is_named(image_folder):
    dataset = build('CheckedImageNet', image_folder,
                    pipeline=[dict(type='LoadImageFromFile')])
    assert isinstance(dataset[0]['img'], np.ndarray)
    (image_folder / 'train' / 'ant' / '0.jpg').write_bytes(b'')
    with pytest.raises(InputError, match='0.jpg cannot be decoded'):
        dataset[0]


def test_named_class_may_have_no_pictures(image_folder):
    for path in (image_folder / 'train' / 'bee').iterdir():
        path.unlink()
    labels = [info['gt_label'] for info in samples(
        build('CheckedCustomDataset', image_folder))]
    assert sorted(set(labels)) == [0, 2, 3]
