import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose

from mmadder.datasets.loading import (
    CheckedLoadImageFromFile,
    name_pictures_in_errors,
)
from mmadder.errors import InputError


@pytest.mark.parametrize('kwargs', [
    dict(), dict(to_float32=True), dict(color_type='grayscale'),
    dict(imdecode_backend='pillow')])
def test_sound_picture_loads_as_in_mmcv(voc, kwargs):
    path = str(voc / 'JPEGImages' / 'train_0.jpg')
    pipeline = Compose([LoadImageFromFile(**kwargs)])
    name_pictures_in_errors(pipeline)
    got = pipeline(dict(img_path=path))
    expected = LoadImageFromFile(**kwargs)(dict(img_path=path))
    assert type(pipeline.transforms[0]) is CheckedLoadImageFromFile
    assert got.keys() == expected.keys()
    assert got['img'].dtype == expected['img'].dtype
    np.testing.assert_array_equal(got['img'], expected['img'])


@pytest.mark.parametrize('kwargs', [dict(), dict(imdecode_backend='pillow')])
@pytest.mark.parametrize('keep', [0, 10, 0.5])
def test_damaged_picture_is_named(voc, keep, kwargs):
    path = voc / 'JPEGImages' / 'train_0.jpg'
    content = path.read_bytes()
    path.write_bytes(content[:keep if keep != 0.5 else len(content) // 2])
    load = CheckedLoadImageFromFile(**kwargs)
    with pytest.raises(InputError, match='train_0.jpg cannot be decoded'):
        load(dict(img_path=str(path)))
    assert CheckedLoadImageFromFile(ignore_empty=True)(
        dict(img_path=str(voc / 'none.jpg'))) is None


def test_text_file_and_missing_file_are_named(voc):
    load = CheckedLoadImageFromFile()
    with pytest.raises(InputError, match='train_0.xml cannot be decoded'):
        load(dict(img_path=str(voc / 'Annotations' / 'train_0.xml')))
    with pytest.raises(InputError, match='none.jpg does not exist'):
        load(dict(img_path=str(voc / 'none.jpg')))
    with pytest.raises(InputError, match='JPEGImages cannot be decoded'):
        load(dict(img_path=str(voc / 'JPEGImages')))
