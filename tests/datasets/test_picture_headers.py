import pytest
from PIL import Image

from mmadder.datasets.picture_headers import PictureHeader, read_header
from mmadder.errors import InputError


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp', 'tif'])
def test_size_of_each_kind(tmp_path, suffix):
    path = tmp_path / f'a.{suffix}'
    Image.new('RGB', (30, 20), (1, 2, 3)).save(path)
    assert read_header(path) == PictureHeader(30, 20)
    assert not read_header(path).turned


def test_orientation_that_is_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_header(tmp_path / 'a.jpg') == PictureHeader(30, 20, 1)


def test_what_is_no_picture(tmp_path):
    (tmp_path / 'text.jpg').write_text('no picture')
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'folder.jpg').mkdir()
    for name, message in (('text', 'no picture'), ('empty', 'is empty'),
                          ('folder', 'damaged'), ('none', 'not exist')):
        with pytest.raises(InputError, match=f'{name}.jpg .*{message}'):
            read_header(tmp_path / f'{name}.jpg')
