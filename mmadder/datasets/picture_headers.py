"""What a picture file says of itself, without decoding it."""
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from mmadder.errors import InputError

ORIENTATION = 0x0112  # EXIF's tag
TURNED = (5, 6, 7, 8)  # by a quarter: stored width and height are exchanged
JPEG_END, PNG_END = b'\xff\xd9', b'IEND\xaeB`\x82'
TAIL = 64  # bytes: cameras pad files


class PictureHeader(NamedTuple):
    """Size in pixels as OpenCV loads it, turned as EXIF says."""
    width: int
    height: int
    orientation: int = 1  # EXIF's, 1 to 8; 1 is upright

    @property
    def turned(self) -> bool:
        """Whether the file stores width and height the other way round."""
        return self.orientation in TURNED


def read_header(path: str | Path) -> PictureHeader:
    """Read size and orientation of a picture, and look whether it is whole.

    Raises:
        InputError: the file is missing, no picture, or truncated.
    """
    path = Path(path)
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            orientation = _orientation(picture)
            if not _ends_well(path, picture.format):
                picture.load()  # decides
    except FileNotFoundError as error:
        raise InputError(f'picture {path} does not exist') from error
    except UnidentifiedImageError as error:
        raise InputError(f'picture {path} is empty, or no picture') from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f'picture {path} is damaged: {error}') from error
    if orientation not in range(1, 9):
        orientation = 1
    if orientation in TURNED:
        width, height = height, width
    return PictureHeader(width, height, orientation)


def _orientation(picture):
    if picture.format != 'PNG':
        return picture.getexif().get(ORIENTATION, 1)
    # getexif would decode the whole picture.
    exif = Image.Exif()
    exif.load(picture.info.get('exif'))
    return exif.get(ORIENTATION, 1)


def _ends_well(path, kind):
    """Whether the last bytes are those of a whole file."""
    end = dict(JPEG=JPEG_END, PNG=PNG_END).get(kind)
    if end is None:
        return False
    with open(path, 'rb') as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - TAIL, 0))
        return file.read().rstrip(b'\0\r\n ').endswith(end)
