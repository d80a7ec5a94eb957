"""Images of a config as pixels in [0, 1], and statistics from them."""

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor, nn
from torch.utils.data import Subset

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.statistics import reestimate_statistics

from .pixels import PixelClassifier

REPEATING = ('RepeatDataset', 'ClassBalancedDataset')


def load_pixels(cfg: Config, classifier: PixelClassifier, count: int,
                seed: int = 0, split: str = 'test') -> tuple[Tensor, Tensor]:
    """Load images, balanced over the classes and shuffled.

    Args:
        cfg: of MMPretrain, with ``test_dataloader``.
        classifier: says the order of the channels.
        count: images; at most as many as there are.
        seed: of the choice and the order.
        split: 'test', or 'train' for the training set in the test pipeline.
    Returns:
        Images (count, 3, H, W), float32, in [0, 1]; and labels (count,),
        int64.
    Raises:
        InputError: the dataset is no classification set, has fewer images,
            or pictures of several sizes.
    """
    dataset = dict(_single(cfg, split),
                   pipeline=_single(cfg, 'test')['pipeline'])
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        dataset = DATASETS.build(dataset)
    if not hasattr(dataset, 'get_gt_labels'):
        raise InputError('attacks need a classification dataset, '
                         f'{type(dataset).__name__} has no labels of images')
    labels = torch.from_numpy(dataset.get_gt_labels()).long()
    if not 1 <= count <= len(labels):
        raise InputError(f'{count} images were asked for, the {split} set '
                         f'has {len(labels)}')
    chosen = balanced_sample(labels, count, seed)
    samples = [sample['inputs'] for sample in Subset(dataset, chosen)]
    shapes = {tuple(sample.shape) for sample in samples}
    if len(shapes) > 1:
        raise InputError('attacks need pictures of one size, the test '
                         f'pipeline gives {sorted(shapes)}')
    return classifier.from_uint8(torch.stack(samples)), labels[chosen]


def _single(cfg, split):
    """The config of a data set, without what only repeats its images."""
    dataset = cfg[f'{split}_dataloader'].dataset
    while type_name(dataset) in REPEATING:
        dataset = dataset.dataset
    if 'pipeline' not in dataset:
        raise InputError('attacks need one classification dataset with a '
                         f'pipeline, the {split} set is a '
                         f'{type_name(dataset)}')
    return dataset


def recalibrate(classifier: nn.Module, images: Tensor,
                batch_size: int = 250) -> None:
    """Estimate the tracked statistics of all batch norms anew, in place.

    For a network that is tested on other images than it was trained on:
    mode R of robust inference divides by the tracked variance. Weights stay
    as they are.

    Args:
        classifier: pixels to logits.
        images: (N, 3, H, W), shuffled, not those of the test.
        batch_size: each batch counts the same, so N should be a multiple of
            it; see :func:`split_batches`.
    Raises:
        InputError: no batch norm tracks statistics, or one image, which has
            no variance behind global pooling.
    """
    if len(images) < 2:
        raise InputError('statistics of batch norms need at least 2 images, '
                         f'got {len(images)}')
    device = next(classifier.parameters(), images).device
    reestimate_statistics(classifier, split_batches(images, batch_size),
                          lambda batch: classifier(batch.to(device)))


def split_batches(values: Tensor, size: int) -> list[Tensor]:
    """Split along the first axis; a last part below half joins the other.

    Raises:
        InputError: size below 1.
    """
    if size < 1:
        raise InputError(f'batch size must be positive, got {size}')
    parts = list(values.split(size))
    if len(parts) > 1 and 2 * len(parts[-1]) < size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def balanced_sample(labels: Tensor, count: int, seed: int) -> list[int]:
    """Choose images so that class counts differ by one at most.

    Args:
        labels: (N,)
        count, seed: of the choice.
    Returns:
        Shuffled indices. Where classes have too few images, the others fill
        up.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels), dtype=torch.long)  # within its class
    for label in labels.unique():
        own = (labels[order] == label).nonzero().flatten()
        rank[own] = torch.arange(len(own))
    chosen = order[rank.argsort(stable=True)[:count]]
    return chosen[torch.randperm(count, generator=generator)].tolist()
