"""Class lists of checkpoints, models and datasets.

A head of another size does not load. A head of the same size for other
classes, or for the same in another order, does, and every figure is wrong.
"""

from typing import Any

from torch import Tensor, nn

from mmadder.text import shorten

MAX_NAMES = 3  # pairs listed


def trained_classes(checkpoint: Any) -> tuple[str, ...]:
    """Return the class names that MMEngine wrote into a checkpoint, or ().

    Args:
        checkpoint: what is in the file.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get('dataset_meta')
    # A list is one for each of several datasets.
    dataset = dataset if isinstance(dataset, dict) else {}
    return tuple(dataset.get('classes') or dataset.get('CLASSES')
                 or meta.get('CLASSES')  # before MMEngine
                 or ())


def differing_classes(trained: tuple[str, ...], dataset: Any) -> str:
    """Say how the classes of a dataset differ from a checkpoint's.

    Args:
        trained: the checkpoint's.
        dataset: MMEngine's, with ``metainfo``.
    Returns:
        Empty if they are the same, or one of the two has none.
    """
    metainfo = getattr(dataset, 'metainfo', None)
    own = metainfo.get('classes') if isinstance(metainfo, dict) else None
    if not trained or not own or tuple(own) == trained:
        return ''
    if len(own) != len(trained):
        return f'{len(trained)} in the checkpoint, {len(own)} in the dataset'
    pairs = [f'{old!r} in the checkpoint is {new!r} in the dataset'
             for old, new in zip(trained, own) if old != new]
    return shorten(pairs, MAX_NAMES)


def class_counts(model: nn.Module, key: str, found: Tensor,
                 own: Tensor) -> tuple[int, int] | None:
    """Tell for how many classes a layer of another shape was trained.

    Args:
        model: with the layer.
        key: parameter of a classification layer, which has as many
            rows as its head has classes (``num_classes``), or one more for
            the background.
        found, own: the parameter in the file, and the model's.
    Returns:
        Classes in the file and in the model; None if the
        key is another parameter.
    """
    classes = num_classes(model, key)
    if classes is None or own.ndim == 0 or own.shape[1:] != found.shape[1:]:
        return None
    background = len(own) - classes
    if background not in (0, 1) or len(found) <= background:
        return None
    return len(found) - background, classes


def num_classes(model: nn.Module, key: str) -> int | None:
    """Return ``num_classes`` of the innermost module around a parameter."""
    parts = key.split('.')[:-1]
    for depth in range(len(parts), 0, -1):
        module = model.get_submodule('.'.join(parts[:depth]))
        number = getattr(module, 'num_classes', None)
        if isinstance(number, int):
            return number
    return None
