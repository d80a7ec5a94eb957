"""The rest of the batch as the attacker, and as a shield.

Where statistics are the batch's, an image is answered differently beside
other images. Who can change those needs not touch the image itself: the
distribution invading attack of "Uncovering Adversarial Risks of Test-Time
Adaptation" (arXiv:2301.12576). The other way round, adversarial images may
fail among benign ones.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .attacks import Attack


def split_batch(count: int, share: float,
                seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Choose targets and others, so that each image is a target once.

    Args:
        count: images of the batch.
        share: of the batch that are others, in (0, 1); at least one image is
            a target.
        seed: of the choice.
    Returns:
        Pairs of (count,), bool: True for targets, and for others. The number
        of others is always the same. Where the last targets are fewer than
        the first, some images are neither.
    """
    order = torch.randperm(
        count, generator=torch.Generator().manual_seed(seed))
    size = max(1, round((1 - share) * count))

    def chosen(indices):
        return torch.zeros(count, dtype=torch.bool).index_fill(0, indices, 1)

    return [(chosen(order[start:start + size]),
             chosen(torch.cat([order[start + size:], order[:start]])[
                 :count - size]))
            for start in range(0, count, size)]


class FixedTargets(nn.Module):
    """Logits of targets that stay as they are, whatever others do.

    Args:
        model: pixels to logits.
        images: (N, C, H, W), of all but the others.
        targets, others: (N,), bool.
    Input:
        (N, C, H, W), of which the others are taken.
    Returns:
        (N, classes), constant for those that are no targets.
    """

    def __init__(self, model: nn.Module, images: Tensor, targets: Tensor,
                 others: Tensor):
        super().__init__()
        self.model, self.images = model, images
        self.targets, self.others = targets, others

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(replace(self.images, self.others, images))
        return logits.where(self.targets[:, None], 0)


def replace(images: Tensor, which: Tensor, new: Tensor) -> Tensor:
    """Return a batch some of whose images are those of another one."""
    return torch.where(which[:, None, None, None], new, images)


def attack_neighbours(
        model: nn.Module, attack: Attack, images: Tensor, labels: Tensor,
        share: float, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Attack a share of the batch, so that its targets are misclassified.

    Args:
        model: pixels to logits; in a mode of batch statistics, or no
            gradient reaches the others. They are not to be detached.
        attack: by gradients, such as PGD.
        images, labels: (N, C, H, W) in [0, 1] and (N,), one batch.
        share: of the batch that the attacker has, see :func:`split_batch`.
        seed: of the targets and the attack.
    Yields:
        Targets (N,), bool, and a batch in which only others have moved, by
        attack.eps at most.
    """
    for targets, others in split_batch(len(images), share, seed):
        targets, others = targets.to(images.device), others.to(images.device)
        made = attack(FixedTargets(model, images, targets, others), images,
                      labels, seed)
        yield targets, replace(images, others, made)


def surround(images: Tensor, adversarial: Tensor, share: float,
             seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Show adversarial images in batches of which a share is benign.

    Args:
        images, adversarial: (N, C, H, W) each, the same before and after an
            attack.
        share: benign part of each batch, see :func:`split_batch`.
        seed: of the targets.
    Yields:
        Targets (N,), bool, and a batch in which they are adversarial.
    """
    for targets, others in split_batch(len(images), share, seed):
        targets, others = targets.to(images.device), others.to(images.device)
        yield targets, replace(adversarial, others, images)
