"""The digit scenes: reproducible, disjoint, tight, whole or not at all."""
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from mmadder.datasets import digits
from mmadder.errors import InputError

SETTINGS = dict(scenes=(12, 5, 6), crops=(20, 5, 5))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'set'
    assert digits.make_digits(out, **SETTINGS)
    return out


def read_objects(root, split):
    """(picture name, class, source, box) of all objects, box 1-based."""
    voc = root / 'VOC2007'
    for name in (voc / 'ImageSets/Main' / f'{split}.txt').read_text().split():
        tree = ElementTree.parse(voc / 'Annotations' / f'{name}.xml')
        for element in tree.iter('object'):
            box = [int(element.findtext(f'bndbox/{tag}'))
                   for tag in ('xmin', 'ymin', 'xmax', 'ymax')]
            yield (name, element.findtext('name'),
                   int(element.findtext('source')), box)


def test_splits_share_no_source_digit(root):
    sources = {split: {source for _, _, source, _ in
                       read_objects(root, split)} for split in digits.SPLITS}
    assert all(sources.values())
    assert not sources['train'] & sources['val']
    assert not sources['train'] & sources['test']
    assert not sources['val'] & sources['test']
    splits = digits._split_sources(seed=0)
    assert sum(len(split.indices) for split in splits.values()) == 1797
    for name, split in splits.items():
        assert sources[name] <= set(split.indices.tolist())


def test_classes_are_those_of_the_source(root):
    from sklearn.datasets import load_digits
    target = load_digits().target
    for split in digits.SPLITS:
        for _, name, source, _ in read_objects(root, split):
            assert str(target[source]) == name


def test_scenes_hold_two_to_six_digits_of_a_tenth_to_a_half(root):
    scenes = {}
    for split in digits.SPLITS:
        for name, _, _, box in read_objects(root, split):
            scenes.setdefault(name, []).append(box)
    assert len(scenes) == 23
    for boxes in scenes.values():
        assert 2 <= len(boxes) <= 6
        for x1, y1, x2, y2 in boxes:
            assert 1 <= x1 <= x2 <= 128 and 1 <= y1 <= y2 <= 128
            longer = max(x2 - x1, y2 - y1) + 1
            assert 12 <= longer <= 64
        for i, a in enumerate(boxes):
            for b in boxes[i + 1:]:  # apart
                assert a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]


def test_ink_fills_its_box():
    """Every side of the box touches the digit, and nothing lies outside."""
    alpha = np.zeros((8, 8), np.float32)
    alpha[1:7, 3:5] = 1
    ink = digits._scaled_ink(alpha, 40)
    assert ink.shape[0] in (39, 40) and 10 <= ink.shape[1] <= 18
    for edge in (ink[0], ink[-1], ink[:, 0], ink[:, -1]):
        assert (edge > digits.ALPHA_INK).any()


def test_pictures_and_crops_are_there(root):
    for split, _, crops in zip(digits.SPLITS, *SETTINGS.values()):
        names = (root / 'VOC2007/ImageSets/Main' / f'{split}.txt')
        for name in names.read_text().split():
            picture = cv2.imread(str(root / f'VOC2007/JPEGImages/{name}.jpg'))
            assert picture.shape == (128, 128, 3)
        files = list((root / 'crops' / split).glob('*/*.jpg'))
        assert len(files) == crops
        assert len(list((root / 'crops' / split).iterdir())) == 10
        assert cv2.imread(str(files[0])).shape == (48, 48, 3)


def test_same_seed_same_files(root, tmp_path):
    digits.make_digits(tmp_path / 'same', **SETTINGS)
    digits.make_digits(tmp_path / 'other', **SETTINGS, seed=1)
    files = [path.relative_to(root) for path in root.rglob('*.jpg')]
    same = [(root / f).read_bytes() == (tmp_path / 'same' / f).read_bytes()
            for f in files]
    assert all(same) and len(same) == 53
    scene = 'VOC2007/JPEGImages/train_00000.jpg'
    assert (root / scene).read_bytes() != (
        tmp_path / 'other' / scene).read_bytes()


def test_rerun_writes_nothing_and_other_settings_are_refused(root):
    assert not digits.make_digits(root, **SETTINGS)
    with pytest.raises(InputError, match='other settings'):
        digits.make_digits(root, **SETTINGS, seed=5)


def test_foreign_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match='not a set of digits'):
        digits.make_digits(tmp_path)


def test_half_written_set_is_never_taken_for_whole(tmp_path, monkeypatch):
    out = tmp_path / 'set'

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digits, '_write_crops', interrupt)
        with pytest.raises(KeyboardInterrupt):
            digits.make_digits(out, **SETTINGS)
    assert not out.exists()
    assert digits.make_digits(out, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize('wrong, message', [
    (dict(scenes=(1, 0, 1)), 'scenes needs a positive number'),
    (dict(crops=(1, 1)), 'crops needs'),
    (dict(digits_per_scene=(3, 2)), 'digits_per_scene must be'),
    (dict(size=32), 'size must be at least 80 pixels'),
])
def test_wrong_settings(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        digits.make_digits(tmp_path / 'set', **dict(SETTINGS, **wrong))
    assert not (tmp_path / 'set').exists()
