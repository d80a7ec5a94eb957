"""The strongest of several attacks, where answers depend on the batch.

An attack with restarts goes on with the images that still resist. In modes
whose statistics are the batch's that changes every answer, so that what was
found counts no more when the whole batch is scored. Here every run attacks
the whole batch, and what it found is joined and asked again as a batch.

Test-time defences are to be judged so, against the static model and by
attacks that fit them: arXiv:2202.13711.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # optional
    import torchattacks

LOSSES = ('ce', 'dlr')  # cross entropy may vanish, DLR does not
RESTARTS = 2
Run = Callable[[Tensor, Tensor], Iterable[Tensor]]


@torch.no_grad()
def strongest_batch(model: nn.Module, runs: Iterable[Run], images: Tensor,
                    labels: Tensor) -> Tensor:
    """Take of each image the worst that several attacks found.

    No weaker than any of them: a batch is taken if fewer of its images are
    classified right, all asked together.

    Args:
        model: (N, C, H, W) pixels to (N, classes) logits.
        runs: each from images and labels to batches of adversarial images.
        images: (N, C, H, W), to begin with.
        labels: (N,), int64.
    Returns:
        (N, C, H, W).
    """
    def right(batch):
        return model(batch).argmax(1) == labels

    best, resisting = images, right(images)
    for run in runs:
        if not resisting.any():
            break
        for made in run(images, labels):
            alone = right(made)
            joined = torch.where(
                _per_image(resisting & ~alone), made, best)
            for batch, left in ((made, alone), (joined, right(joined))):
                if left.sum() < resisting.sum():
                    best, resisting = batch, left
    return best


def whole_batch(apgd: 'torchattacks.APGD') -> Run:
    """Run an APGD (arXiv:2003.01690) once, without dropping images.

    Yields, when called, the images of the largest loss; and those that were
    misclassified on the way, where that is not the same.
    """
    def run(images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        largest, right, _, fooling = apgd.attack_single_run(images, labels)
        yield largest.detach()
        yield torch.where(_per_image(right), largest, fooling).detach()

    return run


def _per_image(flags):
    return flags[:, None, None, None]
