"""CIFAR-10 as published, or as a folder of pictures."""

from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import CIFAR10

from mmadder.errors import InputError

from .loading import CheckedLoadImageFromFile

SUFFIXES = ('.jpg', '.jpeg', '.png')
SPLITS = ('train', 'val', 'trainval', 'test')
HELD_OUT = 10  # one in so many


@DATASETS.register_module()
class CIFAR10Images(CIFAR10):
    """CIFAR-10 in either of its two layouts, decoded once and kept.

    ``data_root`` holds the published batches (``cifar-10-batches-py``,
    checked by their MD5 sums) or pictures of 32x32 in
    ``{train,test}/<class>/<name>.{jpg,png}``. Samples are equal in both: an
    RGB array ``img`` and a label, so that pipelines need no loading step.
    Nothing is downloaded.

    Of each class's n training pictures, in the order of their file names or
    of the published batches, ``RandomState(0).permutation(n)`` holds out the
    first tenth, 500 of 5,000: the same on every platform.

    Args:
        data_root (str): the folder.
        split (str): 'train' is the 45,000 pictures that are not held out,
            'val' the 5,000 that are, 'trainval' all 50,000, 'test' the
            10,000.
        images_per_class (int, optional): take only the first of each class
            in the split, for short trainings.
        **kwargs: of MMPretrain's CIFAR10, such as ``pipeline`` and
            ``indices``.
    Raises:
        InputError: there is no such split, neither layout is there, a class
            is missing or unknown, or a picture is damaged or of another
            size, or a class has fewer than ``images_per_class``, or none to
            train on.
    """

    size = (32, 32)  # (height, width) of every picture

    def __init__(self, data_root, split='train', images_per_class=None,
                 test_mode=False, **kwargs):
        if split not in SPLITS:
            raise InputError(
                f'split={split!r} is none of {", ".join(SPLITS)}')
        self.part = split  # of the published set, which is self.split
        self.images_per_class = images_per_class
        super().__init__(
            data_root, split='test' if split == 'test' else 'train',
            download=False, **kwargs)
        self.test_mode = test_mode  # MMPretrain warns of it where not 'test'

    def load_data_list(self):
        samples = self._read()
        if self.part in ('train', 'val'):
            samples = self._hold_out(samples)
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

    def _hold_out(self, samples):
        labels = np.array([sample['gt_label'] for sample in samples])
        held_out = np.zeros(len(samples), bool)
        for label, name in enumerate(self.metainfo['classes']):
            own = np.flatnonzero(labels == label)
            count = -(-len(own) // HELD_OUT)
            if self.part == 'train' and count == len(own):
                raise InputError(
                    f'nothing is left to train on in class {name}, which has '
                    f'{count} training pictures, where a tenth is held out: '
                    "give it more, or take split='trainval'")
            # NumPy freezes the numbers of RandomState, not of default_rng.
            chosen = np.random.RandomState(0).permutation(len(own))[:count]
            held_out[own[chosen]] = True
        return [sample for sample, held in zip(samples, held_out)
                if held == (self.part == 'val')]

    def _first_of_each_class(self, samples):
        count, kept = self.images_per_class, []
        for label, name in enumerate(self.metainfo['classes']):
            own = [s for s in samples if s['gt_label'] == label]
            if not 1 <= count <= len(own):
                raise InputError(
                    f'images_per_class={count} was asked for, class {name} '
                    f'has {len(own)} in the {self.part} set')
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
            for path in sorted((folder / name).iterdir(),
                               key=lambda path: path.name)
            if path.suffix.lower() in SUFFIXES]

    def _read_picture(self, path, loader):
        bgr = loader.transform(dict(img_path=str(path)))['img']
        if bgr.shape != (*self.size, 3):
            height, width = bgr.shape[:2]
            raise InputError(f'picture {path} must be 32x32 pixels, it is '
                             f'{width}x{height}')
        return np.ascontiguousarray(bgr[..., ::-1])
