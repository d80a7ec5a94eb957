"""Models that take pixels in [0, 1], as attacks need them."""

from typing import Any

import torch
from torch import Tensor, nn

from mmadder.errors import InputError


def require_pixels(images: Tensor) -> None:
    """Raise InputError unless images are (N, C, H, W) floats in [0, 1].

    Of half types a step of 1/255 would be rounded.
    """
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise InputError('images must be (N, C, H, W) of float32 or float64, '
                         f'got {tuple(images.shape)}, {images.dtype}')
    low, high = images.aminmax() if images.numel() else (0, 1)
    if not (low >= 0 and high <= 1):
        raise InputError(
            f'images must be pixels in [0, 1], got [{low:.3f}, {high:.3f}]; '
            'divide 8-bit pixels by 255, and let the model normalize')


def require_logits(model: nn.Module, logits: Any,
                   labels: Tensor) -> None:
    """Raise InputError unless a model's output is a score per class."""
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(
            logits) != len(labels):
        raise InputError(
            f'attacks need a model that returns logits ({len(labels)}, '
            f'classes), {type(model).__name__} returns {_shape(logits)}; wrap '
            'a classifier of MMPretrain in PixelClassifier, a loss in '
            'LossLogits')
    if len(labels) and not (
            0 <= labels.min() and labels.max() < logits.shape[1]):
        raise InputError(
            f'labels must be numbers below the {logits.shape[1]} classes of '
            f'the model, got {labels.tolist()}')


def _shape(output):
    return tuple(output.shape) if isinstance(
        output, torch.Tensor) else type(output).__name__


class PixelClassifier(nn.Module):
    """Logits of MMPretrain's classifier from pixels in [0, 1].

    Args:
        model: an ImageClassifier whose data preprocessor does
            nothing but exchange channels and normalize.
    Input:
        (N, 3, H, W), pixels in [0, 1]; channels in the order of the
        preprocessor's ``mean``.
    Returns:
        Tensor: (N, classes), logits.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        preprocessor = model.data_preprocessor
        if getattr(preprocessor, 'pad_size_divisor', 1) > 1:
            raise InputError('attacks need a data preprocessor that does not '
                             'pad: set pad_size_divisor=1')
        self.model = model
        like = next(model.parameters()).new_ones(1, 1, 1)
        mean = getattr(preprocessor, 'mean', torch.zeros_like(like))
        std = getattr(preprocessor, 'std', like)
        self.register_buffer('mean', mean / 255, persistent=False)
        self.register_buffer('std', std / 255, persistent=False)
        self.to_rgb = getattr(preprocessor, 'to_rgb', False)

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std, mode='tensor')

    def from_uint8(self, images: Tensor) -> Tensor:
        """Return what a dataset gives as input of :meth:`forward`.

        Args:
            images: (N, 3, H, W), uint8, channels as loaded.
        """
        images = images.flip(1) if self.to_rgb else images
        return images.float() / 255

    def to_loaded(self, images: Tensor) -> Tensor:
        """Return pixels as a dataset gives them, but in float.

        Args:
            images: (N, 3, H, W), pixels in [0, 1] as :meth:`forward` takes
                them.
        """
        return (images.flip(1) if self.to_rgb else images) * 255


class LossLogits(nn.Module):
    """Logits whose cross entropy is a loss, for attacks on any loss.

    Attacks on classifiers maximize the cross entropy of logits. Of logits
    (0, loss + 100) and label 0 that is log(1 + exp(loss + 100)): in float32
    it grows as fast as the loss.

    Args:
        loss: (N, C, H, W) pixels to one number, above -50.
    Input:
        (N, C, H, W), pixels in [0, 1].
    Returns:
        Tensor: (N, 2), logits; all labels are to be 0.
    Example:
        >>> bright = nn.AdaptiveAvgPool3d(1)
        >>> Attack('FGSM')(LossLogits(bright), torch.zeros(1, 3, 8, 8),
        ...                torch.tensor([0])).max() * 255
        tensor(8.)
    """

    OFFSET = 100.

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss

    def forward(self, images: Tensor) -> Tensor:
        loss = self.loss(images)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise InputError(
                f'{type(self.loss).__name__} is to return a loss, one number; '
                f'it returns {_shape(loss)}')
        loss = loss.reshape(1) + self.OFFSET
        return torch.stack([torch.zeros_like(loss), loss], 1).expand(
            len(images), 2)
