"""Test a model again and again, and measure its batch norms anew."""
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.statistics import reestimate_statistics


class TestSet:
    """The config's test images and metrics, evaluated again and again.

    Args:
        cfg: of MMPretrain or MMDetection.
        images: a random choice of so many; default: all.
        seed: of the choice.
    Raises:
        InputError: there are fewer images, or a metric needs all of them.
    """
    __test__ = False  # no test case for pytest

    def __init__(self, cfg: Config, images: int | None = None,
                 seed: int = 0) -> None:
        self.scope = cfg.get('default_scope', 'mmengine')
        loader = dict(cfg.test_dataloader)
        with DefaultScope.overwrite_default_scope(self.scope):
            if images is not None:
                _require_any_subset(cfg.test_evaluator)
                loader['dataset'] = subset(
                    DATASETS.build(loader['dataset']), images, seed)
            self.loader = Runner.build_dataloader(loader, seed=seed)
            self.evaluator = Evaluator(cfg.test_evaluator)
        self.evaluator.dataset_meta = getattr(
            self.loader.dataset, 'metainfo', None)

    def __len__(self) -> int:
        return len(self.loader.dataset)

    @torch.no_grad()
    def evaluate(self, model: nn.Module,
                 progress: Callable[[Iterable], Iterable] = iter,
                 ) -> dict[str, float]:
        """Test a model.

        Args:
            model: put into evaluation mode.
            progress: wraps the iterable of batches.
        Returns:
            the metrics.
        """
        model.eval()
        with DefaultScope.overwrite_default_scope(self.scope):
            for batch in progress(self.loader):
                outputs = model.test_step(batch)
                self.evaluator.process(data_samples=outputs, data_batch=batch)
            return self.evaluator.evaluate(len(self))


def test_batch(cfg: Config, images: int, seed: int = 0) -> dict[str, Any]:
    """Load a random choice of test images as one batch."""
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope', 'mmengine')):
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset))
        loader = dict(
            cfg.test_dataloader, batch_size=images, num_workers=0,
            persistent_workers=False, dataset=subset(dataset, images, seed))
        return next(iter(Runner.build_dataloader(loader, seed=seed)))


test_batch.__test__ = False


def training_batches(cfg: Config, count: int,
                     seed: int = 0) -> list[dict[str, Any]]:
    """Load the first batches of the training, augmented as there.

    Returns:
        ``count`` batches, or all if there are fewer.
    """
    loader = dict(cfg.train_dataloader, num_workers=0,
                  persistent_workers=False)
    torch.manual_seed(seed)
    np.random.seed(seed)
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope', 'mmengine')):
        loader = Runner.build_dataloader(loader, seed=seed)
        return [batch for _, batch in zip(range(count), loader)]


def reestimate_on_batches(
        model: nn.Module, batches: Sequence[dict[str, Any]],
        progress: Callable[[Iterable], Iterable] = iter) -> None:
    """Estimate the statistics of batch norms anew, on training batches.

    Args:
        model: of MMPretrain or MMDetection; in evaluation mode afterwards.
        batches: of :func:`training_batches`.
        progress: wraps the iterable of batches.
    Raises:
        InputError: the model has no batch norm that tracks statistics.
    """
    model.eval()
    torch.manual_seed(0)  # detectors draw samples of their proposals
    reestimate_statistics(model, progress(batches))


def subset(dataset: BaseDataset, images: int, seed: int = 0) -> BaseDataset:
    """Choose random images of a dataset, in its order.

    Raises:
        InputError: it has fewer.
    """
    if not 1 <= images <= len(dataset):
        raise InputError(f'{images} images were asked for, the set has '
                         f'{len(dataset)}')
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(dataset))[:images]
    return dataset.get_subset(sorted(chosen.tolist()))


def _require_any_subset(evaluator):
    metrics = evaluator if isinstance(evaluator, (list, tuple)) \
        else [evaluator]
    for metric in metrics:
        if metric.get('ann_file'):
            raise InputError(
                f'{type_name(metric)} compares with all annotations of its '
                'ann_file: leave --images out')
