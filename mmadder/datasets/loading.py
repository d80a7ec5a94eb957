"""Picture loading that names the file it fails on."""

import cv2
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS

from mmadder.errors import InputError


@TRANSFORMS.register_module()
class CheckedLoadImageFromFile(LoadImageFromFile):
    """mmcv's ``LoadImageFromFile`` with errors that name the picture.

    Same arguments and results; serves MMDetection and MMPretrain pipelines.
    With ``ignore_empty=True`` an unreadable file gives None, as in mmcv, and
    the dataset draws another one.

    Raises:
        InputError: the picture is missing, empty, truncated or not a
            picture; the message names the file.
    """

    def transform(self, results):
        path = results['img_path']
        try:
            return super().transform(results)
        except FileNotFoundError as error:
            raise InputError(f'picture {path} does not exist') from error
        except (OSError, AssertionError, cv2.error) as error:
            reason = ' '.join(str(error).split())
            raise InputError(
                f'picture {path} cannot be decoded, it may be empty, '
                f'truncated or no picture at all: {reason}') from error
