"""Pictures in one folder per class."""
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import get_samples

from mmadder.errors import InputError
from mmadder.text import shorten

from .loading import name_pictures_in_errors

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


def class_folders(root: str | Path,
                  known: Collection[str] = (),
                  extensions: Sequence[str] = EXTENSIONS
                  ) -> tuple[list[str], list[str]]:
    """Tell folders of classes from others.

    Args:
        root: folder with one folder of pictures per class.
        known: names of classes; their folders may be empty.
        extensions: of pictures, lower case.
    Returns:
        names of the classes, sorted; and of folders that are none: hidden
        ones, those that tools leave behind (``__MACOSX``), and those without
        a picture.
    """
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir())
    classes = [path.name for path in folders
               if not path.name.startswith(('.', '__'))
               and (path.name in known
                    or _has_picture(path, tuple(extensions)))]
    return classes, [path.name for path in folders
                     if path.name not in classes]


def _has_picture(folder, extensions):
    return any(name.lower().endswith(extensions)
               for _, _, names in os.walk(folder) for name in names)


class _CheckedFolders:
    """What both datasets below add to MMPretrain's."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        name_pictures_in_errors(self.pipeline)

    def _find_samples(self):
        if not self.with_label or not os.path.isdir(self.img_prefix):
            return super()._find_samples()
        classes, others = class_folders(
            self.img_prefix, self.CLASSES or (), self.extensions)
        if others:
            print_log(f'{self.img_prefix}: {len(others)} folders are no '
                      f'classes and left out: {shorten(others)}',
                      logger='current', level=logging.WARNING)
        if not classes:
            raise InputError(f'{self.img_prefix} has no folder with pictures, '
                             'expected one per class')
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(classes)
        elif len(self.CLASSES) != len(classes):
            raise InputError(
                f'{self.img_prefix} has {len(classes)} classes '
                f'({shorten(classes)}), the config names {len(self.CLASSES)} '
                f'({shorten(self.CLASSES)})')
        self.folder_to_idx = {name: i for i, name in enumerate(classes)}
        samples, _ = get_samples(self.img_prefix, self.folder_to_idx,
                                 is_valid_file=self.is_valid_file)
        return samples


@DATASETS.register_module()
class CheckedCustomDataset(_CheckedFolders, CustomDataset):
    """MMPretrain's ``CustomDataset`` that leaves other folders alone.

    Takes its arguments and gives its samples, except that folders which are no
    classes (``.ipynb_checkpoints``, ``__MACOSX``, empty ones) are left out
    with a warning, instead of moving the labels of all that follow, and that a
    picture which cannot be decoded is named.

    Raises:
        InputError: there is no class, or another number than the config has
            names for.
    """


@DATASETS.register_module()
class CheckedImageNet(_CheckedFolders, ImageNet):
    """The same of MMPretrain's ``ImageNet``."""
