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


def split_batch(count: int, share: float, seed: int = 0) -> list[Tensor]:
    """Choose targets, so that each image of a batch is one once.

    Args:
        count: images of the batch.
        share: of the batch that are no targets, in (0, 1); at least one
            image is a target.
        seed: of the choice.
    Returns:
        (count,) each, bool: True for targets.
    """
    order = torch.randperm(
        count, generator=torch.Generator().manual_seed(seed))
    parts = order.split(max(1, round((1 - share) * count)))
    return [torch.zeros(count, dtype=torch.bool).index_fill(0, part, True)
            for part in parts]


class FixedTargets(nn.Module):
    """Logits of targets that stay as they are, whatever surrounds them.

    Args:
        model: pixels to logits.
        images: (N, C, H, W), of which targets are taken.
        targets: (N,), bool.
    Input:
        (N, C, H, W), of which the others are taken.
    Returns:
        (N, classes), constant for those that are no targets.
    """

    def __init__(self, model: nn.Module, images: Tensor, targets: Tensor):
        super().__init__()
        self.model, self.images = model, images
        self.targets = targets

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(beside(self.targets, self.images, images))
        return logits.where(self.targets[:, None], 0)


def beside(targets: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """Return a batch of the targets of one batch, the rest of another one."""
    return torch.where(targets[:, None, None, None], images, others)


def attack_neighbours(
        model: nn.Module, attack: Attack, images: Tensor, labels: Tensor,
        share: float, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Attack the rest of the batch, so that its targets are misclassified.

    Args:
        model: pixels to logits; in a mode of batch statistics, or no
            gradient reaches the others. They are not to be detached.
        attack: by gradients, such as PGD.
        images, labels: (N, C, H, W) in [0, 1] and (N,), one batch.
        share: of the batch that the attacker has, see :func:`split_batch`.
        seed: of the targets and the attack.
    Yields:
        Targets (N,), bool, and a batch in which only the others have moved,
        by attack.eps at most.
    """
    for targets in split_batch(len(images), share, seed):
        targets = targets.to(images.device)
        made = attack(
            FixedTargets(model, images, targets), images, labels, seed)
        yield targets, beside(targets, images, made)


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
    for targets in split_batch(len(images), share, seed):
        targets = targets.to(images.device)
        yield targets, beside(targets, adversarial, images)
