"""Pictures with what a model sees in them; the tool is in tests/tools."""
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from mmadder.analysis.predictor import find_pictures
from mmadder.apis import load
from mmadder.errors import InputError
from mmadder.models import build_model

CONFIG = (Path(__file__).parents[2] / 'configs' / 'cifar10' /
          'ann-awn-resnet20_1xb256_cifar10.py')


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(
        0, 255, (64, 80, 3), dtype=np.uint8))
    return path


@pytest.fixture
def demo(tmp_path):
    torch.manual_seed(0)
    cfg, path = Config.fromfile(CONFIG), tmp_path / 'random.pth'
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta=dict(
        dataset_meta=dict(classes=[f'thing {i}' for i in range(10)]))), path)
    return load(cfg, str(path))


def test_the_picture_says_what_was_predicted(demo, picture, tmp_path):
    sample = demo(picture)
    assert isinstance(sample, BaseDataElement)
    label = int(sample.pred_score.argmax())
    out = tmp_path / 'new' / 'drawn.png'
    said = demo.draw(picture, out)
    assert said == f'thing {label}, score {sample.pred_score[label]:.2f}'
    drawn = cv2.imread(str(out))
    assert drawn.shape == (480, 600, 3)
    assert (drawn != cv2.resize(cv2.imread(str(picture)), (600, 480))).any()


def test_what_is_no_picture_is_not_drawn(demo, picture, tmp_path):
    with pytest.raises(InputError, match='scene: expected a name that ends'):
        demo.draw(picture, tmp_path / 'scene')


def test_a_picture_is_drawn_whole_or_not_at_all(
        demo, picture, tmp_path, monkeypatch):
    out = tmp_path / 'out' / 'drawn.png'
    demo.draw(picture, out)
    before = out.read_bytes()

    def fail(image, path):
        Path(path).write_bytes(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr('mmcv.imwrite', fail)
    with pytest.raises(KeyboardInterrupt):
        demo.draw(picture, out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_other_scopes_are_refused():
    with pytest.raises(InputError, match="default_scope is 'mmseg'"):
        load(Config(dict(default_scope='mmseg')), 'none.pth')


def test_pictures_of_a_folder(picture, tmp_path):
    (tmp_path / 'b.JPG').write_bytes(b'')
    (tmp_path / 'notes.txt').write_text('')
    assert find_pictures(picture) == [picture]
    assert find_pictures(tmp_path) == [picture, tmp_path / 'b.JPG']
    with pytest.raises(InputError, match='picture none.png does not exist'):
        find_pictures('none.png')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='has no pictures'):
        find_pictures(tmp_path / 'empty')
