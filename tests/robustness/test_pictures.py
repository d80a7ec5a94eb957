"""Pictures in batches of one size, and configs that give none."""
import copy
import shutil

import cv2
import pytest

from mmadder.errors import InputError
from mmadder.robustness import Pictures


def test_batches_are_of_one_size(detector, digits, tmp_path):
    shutil.copytree(digits / 'VOC2007', tmp_path / 'VOC2007')
    picture = tmp_path / 'VOC2007/JPEGImages/test_0.jpg'
    cv2.imwrite(str(picture), cv2.imread(str(picture))[:48])
    annotation = tmp_path / 'VOC2007/Annotations/test_0.xml'
    annotation.write_text(annotation.read_text().replace(
        '<height>64', '<height>48'))
    cfg = copy.deepcopy(detector[1])
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    pictures = Pictures(cfg)
    assert pictures.batches == [[0], [1, 2]]
    assert pictures.load(0)[0].shape == (1, 3, 60, 80)
    assert Pictures(cfg, batch_size=1).batches == [[0], [1], [2]]
    assert pictures.digest != Pictures(detector[1]).digest
    assert Pictures(detector[1], count=2).size == 2
    assert Pictures(detector[1]).digest == Pictures(detector[1]).digest


def test_wrong_configs(detector):
    cfg = copy.deepcopy(detector[1])
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1], pipeline[2] = pipeline[2], pipeline[1]
    with pytest.raises(InputError, match='must come behind Resize'):
        Pictures(cfg)
    del pipeline[1]
    with pytest.raises(InputError, match='has no LoadAnnotations'):
        Pictures(cfg)
    with pytest.raises(InputError, match='batch size must be positive'):
        Pictures(detector[1], batch_size=-1)
    with pytest.raises(InputError, match='4 images were asked.* has 3'):
        Pictures(detector[1], count=4)
