"""Class lists of checkpoints, models and datasets.

A head of another size does not load. A head of the same size for other
classes, or for the same in another order, does, and every figure is wrong.
"""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log

from mmadder.errors import InputError

MAX_NAMES = 3  # pairs listed
ADVICE = ('use the config that it was trained with; if the names mean the '
          "same, custom_hooks=[dict(type='CheckpointCheckHook', "
          'compare_classes=False)]')


class ClassListHook(Hook):
    """Compare the classes of the loaded checkpoint with the dataset's.

    The hook that sees the checkpoint derives from this one and sets
    ``trained``. Testing and resuming need the same classes in the same order;
    where fine-tuning has others, there is a warning.

    Args:
        compare_classes (bool): False leaves the comparison out.
    Raises:
        InputError: other classes, or another order.
    """

    trained = None  # name and classes of the checkpoint

    def __init__(self, compare_classes=True):
        self.compare_classes = compare_classes

    def before_train(self, runner):
        difference = self._difference(runner.train_dataloader)
        if difference and runner._resume:
            raise InputError(f'{difference}; {ADVICE}')
        if difference:
            print_log(f'{difference}; layers for another number of classes '
                      'start anew', logger='current', level=logging.WARNING)
        self.trained = None  # what is tested afterwards is another model

    def before_test(self, runner):
        difference = self._difference(runner.test_dataloader)
        if difference:
            raise InputError(f'{difference}; {ADVICE}')

    def _difference(self, dataloader):
        if self.trained is None or not self.compare_classes:
            return ''
        name, classes = self.trained
        difference = differing_classes(classes, dataloader.dataset)
        return difference and (f'checkpoint {name} was trained for other '
                               f'classes: {difference}')


def trained_classes(checkpoint):
    """Return the class names that MMEngine wrote into a checkpoint, or ()."""
    meta = checkpoint.get('meta') or {}
    dataset_meta = meta.get('dataset_meta') or {}
    if not isinstance(dataset_meta, dict):  # one for each of several datasets
        return ()
    return tuple(dataset_meta.get('classes')
                 or meta.get('CLASSES')  # before MMEngine
                 or ())


def differing_classes(trained, dataset):
    """Say how the classes of a dataset differ from a checkpoint's.

    Args:
        trained (tuple[str]): the checkpoint's.
        dataset (Dataset): MMEngine's, with ``metainfo``.
    Returns:
        str: empty if they are the same, or one of the two has none.
    """
    metainfo = getattr(dataset, 'metainfo', None)
    own = metainfo.get('classes') if isinstance(metainfo, dict) else None
    if not trained or not own or tuple(own) == trained:
        return ''
    if len(own) != len(trained):
        return f'{len(trained)} in the checkpoint, {len(own)} in the dataset'
    pairs = [f'{old!r} in the checkpoint is {new!r} in the dataset'
             for old, new in zip(trained, own) if old != new]
    more = len(pairs) - MAX_NAMES
    return ', '.join(pairs[:MAX_NAMES]) + (
        f', and {more} more' if more > 0 else '')


def class_counts(model, key, found, own):
    """Tell for how many classes a layer of another shape was trained.

    Args:
        model (nn.Module)
        key (str): parameter of a classification layer, which has as many
            rows as its head has classes (``num_classes``), or one more for
            the background.
        found, own (Tensor): the parameter in the file, and the model's.
    Returns:
        tuple[int] | None: classes in the file and in the model; None if the
        key is another parameter.
    """
    classes = _num_classes(model, key)
    if classes is None or own.ndim == 0 or own.shape[1:] != found.shape[1:]:
        return None
    background = len(own) - classes
    if background not in (0, 1) or len(found) <= background:
        return None
    return len(found) - background, classes


def _num_classes(model, key):
    """Return ``num_classes`` of the innermost module around a parameter."""
    parts = key.split('.')[:-1]
    for depth in range(len(parts), 0, -1):
        module = model.get_submodule('.'.join(parts[:depth]))
        number = getattr(module, 'num_classes', None)
        if isinstance(number, int):
            return number
    return None
