"""Picture loading that names the file it fails on."""

import contextlib
from collections.abc import Iterator

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose

from mmadder.errors import InputError


class CheckedLoadImageFromFile(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with errors that name the picture.

    Same arguments and results. No config names it: the inferencers and tools
    of MMDetection and MMPretrain look for the stock loader, so configs have
    that one, and our datasets call :func:`name_pictures_in_errors`. With
    ``ignore_empty=True`` an unreadable file gives None, as in mmcv, and the
    dataset draws another one.

    Raises:
        InputError: the picture is missing, empty, truncated or not a
            picture; the message names the file.
    """

    def transform(self, results):
        with picture_errors(results['img_path']):
            return super().transform(results)


@contextlib.contextmanager
def picture_errors(path: str) -> Iterator[None]:
    """Turn what reading a picture raises into an InputError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f'picture {path} does not exist') from error
    except (OSError, AssertionError, cv2.error) as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f'picture {path} cannot be decoded, it may be empty, truncated '
            f'or no picture at all: {reason}') from error


def name_pictures_in_errors(pipeline: Compose) -> None:
    """Put the checked loader in place of mmcv's in a built pipeline."""
    for i, step in enumerate(pipeline.transforms):
        if type(step) is LoadImageFromFile:
            checked = CheckedLoadImageFromFile.__new__(
                CheckedLoadImageFromFile)
            checked.__dict__.update(step.__dict__)
            pipeline.transforms[i] = checked
