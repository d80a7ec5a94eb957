"""CIFAR-10 as published, or as a folder of pictures."""

from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import CIFAR10

from mmadder.errors import InputError

from .loading import CheckedLoadImageFromFile

SUFFIXES = ('.jpg', '.jpeg', '.png')


@DATASETS.register_module()
class CIFAR10Images(CIFAR10):
    """CIFAR-10 in either of its two layouts, decoded once and kept.

    ``data_root`` holds the published batches (``cifar-10-batches-py``,
    checked by their MD5 sums) or pictures of 32x32 in
    ``{train,test}/<class>/<name>.{jpg,png}``. Samples are equal in both: an
    RGB array ``img`` and a label, so that pipelines need no loading step.
    Nothing is downloaded.

    Args:
        data_root (str): the folder.
        split (str): 'train' or 'test'.
        images_per_class (int, optional): take only the first of each class,
            for short trainings.
        **kwargs: of MMPretrain's CIFAR10, such as ``pipeline`` and
            ``indices``.
    Raises:
        InputError: neither layout is there, a class is missing or unknown,
            or a picture is damaged or of another size, or a class has fewer
            than ``images_per_class``.
    """

    size = (32, 32)  # (height, width) of every picture

    def __init__(self, data_root, split='train', images_per_class=None,
                 **kwargs):
        self.images_per_class = images_per_class
        super().__init__(data_root, split=split, download=False, **kwargs)

    def load_data_list(self):
        samples = self._read()
        return (samples if self.images_per_class is None
                else self._first_of_each_class(samples))

    def _read(self):
        root = self.data_prefix['root']
        folder = Path(root, self.split)
        if folder.is_dir():
            return self._read_pictures(folder)
        try:
            return super().load_data_list()
        except RuntimeError as error:  # a batch is missing or incomplete
            raise InputError(
                f'{root} has neither a folder {self.split} with one folder '
                f'of pictures per class, nor a whole {self.base_folder}, '
                f'unpacked from {self.url}') from error

    def _first_of_each_class(self, samples):
        count, kept = self.images_per_class, []
        for label, name in enumerate(self.metainfo['classes']):
            own = [s for s in samples if s['gt_label'] == label]
            if not 1 <= count <= len(own):
                raise InputError(
                    f'images_per_class={count} was asked for, class {name} '
                    f'has {len(own)} in the {self.split} set')
            kept += own[:count]
        return kept

    def _read_pictures(self, folder):
        classes = self.metainfo['classes']
        found = {path.name for path in folder.iterdir() if path.is_dir()}
        if found != set(classes):
            raise InputError(
                f'{folder} must have one folder per class of CIFAR-10; '
                f'missing: {sorted(set(classes) - found)}, '
                f'unknown: {sorted(found - set(classes))}')
        loader = CheckedLoadImageFromFile()
        return [
            dict(img=self._read_picture(path, loader), gt_label=label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in SUFFIXES]

    def _read_picture(self, path, loader):
        bgr = loader.transform(dict(img_path=str(path)))['img']
        if bgr.shape != (*self.size, 3):
            height, width = bgr.shape[:2]
            raise InputError(f'picture {path} must be 32x32 pixels, it is '
                             f'{width}x{height}')
        return np.ascontiguousarray(bgr[..., ::-1])
