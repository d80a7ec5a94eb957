import pickle

import cv2
import numpy as np
import pytest
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from mmadder.datasets import CIFAR10Images
from mmadder.errors import InputError

CLASSES = CIFAR10.METAINFO['classes']


@pytest.fixture
def pictures():
    """One RGB picture and label per class, test split."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8), range(10)


@pytest.fixture
def folder(tmp_path, pictures):
    for picture, label in zip(*pictures):
        path = tmp_path / 'test' / CLASSES[label] / '0000.png'
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), picture[..., ::-1])
    return tmp_path


@pytest.fixture
def batches(tmp_path, pictures, monkeypatch):
    """The published layout; MMPretrain would refuse other contents."""
    monkeypatch.setattr(CIFAR10Images, 'train_list', [])
    monkeypatch.setattr(CIFAR10Images, 'test_list', [('test_batch', None)])
    path = tmp_path / CIFAR10.base_folder / 'test_batch'
    path.parent.mkdir()
    rows = pictures[0].transpose(0, 3, 1, 2).reshape(10, -1)
    path.write_bytes(pickle.dumps(
        dict(data=rows, labels=list(pictures[1]))))
    return tmp_path


@pytest.mark.parametrize('layout', ['folder', 'batches'])
def test_both_layouts_give_the_same(layout, pictures, request):
    root = request.getfixturevalue(layout)
    dataset = DATASETS.build(dict(
        type='CIFAR10Images', data_root=str(root), split='test',
        pipeline=[dict(type='PackInputs')]))
    assert len(dataset) == 10
    assert dataset.metainfo['classes'] == CLASSES
    for sample, picture, label in zip(dataset, *pictures):
        assert np.array_equal(
            sample['inputs'].permute(1, 2, 0).numpy(), picture)
        assert sample['data_samples'].gt_label.item() == label


def test_bad_input(folder):
    with pytest.raises(InputError, match='neither a folder train .* nor a '
                       'whole cifar-10-batches-py'):
        CIFAR10Images(str(folder), split='train')
    path = folder / 'test' / 'frog' / '0000.png'
    cv2.imwrite(str(path), np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(InputError, match='frog/0000.png must be 32x32 pixels,'
                       ' it is 20x16'):
        CIFAR10Images(str(folder), split='test')
    path.write_bytes(b'')
    with pytest.raises(InputError, match='frog/0000.png cannot be decoded'):
        CIFAR10Images(str(folder), split='test')
    path.unlink()
    (folder / 'test' / 'frog').rename(folder / 'test' / 'toad')
    with pytest.raises(InputError, match=r"missing: \['frog'\], unknown: "
                       r"\['toad'\]"):
        CIFAR10Images(str(folder), split='test')


@pytest.mark.parametrize('layout', ['folder', 'batches'])
def test_first_pictures_of_each_class(layout, request, cifar):
    root = request.getfixturevalue(layout)
    one = CIFAR10Images(str(root), 'test', images_per_class=1)
    assert list(one.get_gt_labels()) == list(range(10))
    with pytest.raises(InputError, match='class airplane has 1 in the test'):
        CIFAR10Images(str(root), 'test', images_per_class=2)
    if layout == 'folder':
        all_, first = (CIFAR10Images(str(cifar), 'trainval',
                                     images_per_class=n)
                       for n in (None, 1))
        assert len(all_) == 20
        for label in range(10):
            assert (first[label]['img'] == all_[2 * label]['img']).all()


def write_set(root, count):
    """Write a training set whose pictures have a color of their own each."""
    for label, name in enumerate(CLASSES):
        for i in range(count):
            path = root / 'train' / name / f'{i:04}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((32, 32, 3), (label, i, 7),
                                           np.uint8))
    return root


def read(root, split, **kwargs):
    """Return {class: numbers of its pictures}, in the order of the set."""
    dataset, found = CIFAR10Images(str(root), split, **kwargs), {}
    for i in range(len(dataset)):
        sample = dataset[i]
        blue, number, label = sample['img'][0, 0, ::-1]
        assert (blue, label) == (sample['gt_label'], 7)
        found.setdefault(sample['gt_label'], []).append(int(number))
    return found


def test_a_tenth_of_each_class_is_held_out(tmp_path):
    root = write_set(tmp_path, 21)
    train, val, both = (read(root, split)
                        for split in ('train', 'val', 'trainval'))
    assert both == dict.fromkeys(range(10), list(range(21)))
    # NumPy keeps the stream of RandomState as it is, on every platform.
    held_out = sorted(np.random.RandomState(0).permutation(21)[:3].tolist())
    assert val == dict.fromkeys(range(10), held_out)
    assert train == dict.fromkeys(
        range(10), [i for i in range(21) if i not in held_out])
    few = read(root, 'train', images_per_class=2)
    assert few == {label: own[:2] for label, own in train.items()}
    with pytest.raises(InputError, match='airplane has 3 in the val set'):
        CIFAR10Images(str(root), 'val', images_per_class=4)


def test_the_split_of_a_class_does_not_depend_on_the_others(tmp_path):
    """Nor on the order in which the samples are read."""
    rng = np.random.RandomState(0)
    labels = rng.permutation(np.repeat(range(10), 50))

    class Shuffled(CIFAR10Images):

        def _read(self):
            return [dict(img=np.full((32, 32, 3), i % 256, np.uint8),
                         number=i, gt_label=int(label))
                    for i, label in enumerate(labels)]

    expected = np.random.RandomState(0).permutation(50)[:5]
    val = Shuffled(str(tmp_path), 'val')
    for label in range(10):
        own = np.flatnonzero(labels == label)
        assert [sample['number'] for sample in val if sample['gt_label']
                == label] == sorted(own[expected])


def test_size_of_the_splits(tmp_path):
    """500 per class of the 5,000."""

    class Whole(CIFAR10Images):

        def _read(self):
            picture = np.zeros((1, 1, 3), np.uint8)
            return [dict(img=picture, gt_label=i % 10) for i in range(50000)]

    for split, count in dict(train=4500, val=500, trainval=5000).items():
        labels = Whole(str(tmp_path), split).get_gt_labels()
        assert np.bincount(labels).tolist() == [count] * 10


def test_val_of_the_published_layout(batches, monkeypatch, capsys):
    """MMPretrain says that val in test mode is the training set."""
    monkeypatch.setattr(CIFAR10Images, 'train_list', [('test_batch', None)])
    val = CIFAR10Images(str(batches), 'val', test_mode=True)
    assert list(val.get_gt_labels()) == list(range(10)) and val.test_mode
    assert 'training set' not in capsys.readouterr().err
    with pytest.raises(InputError, match='nothing is left to train on in '
                       'class airplane'):
        CIFAR10Images(str(batches), 'train')


def test_unknown_split(tmp_path):
    with pytest.raises(InputError, match='split=.valid. is none of train, '
                       'val, trainval, test'):
        CIFAR10Images(str(tmp_path), split='valid')
