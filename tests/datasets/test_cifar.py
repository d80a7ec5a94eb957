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
        all_, first = (CIFAR10Images(str(cifar), 'train', images_per_class=n)
                       for n in (None, 1))
        assert len(all_) == 20
        for label in range(10):
            assert (first[label]['img'] == all_[2 * label]['img']).all()
