"""Plain PyTorch adder convolution: slow, short, the oracle of the tests.

Y = -sum |X - W| over windows of a zero-padded input ("Towards Stable and
Robust AdderNets", NeurIPS 2021, Eq. 1) and AdderNet's surrogate gradients
(arXiv:1912.13200). Memory is that of the unfolded input times C_out: use
small tensors.
"""
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

Extent = int | tuple[int, int]  # one for both axes, or (h, w)


def _differences(input: Tensor, weight: Tensor, stride: Extent,
                 padding: Extent, dilation: Extent, groups: int) -> Tensor:
    """X - W for every output and tap: (N, G, C_out/G, C_in/G*K*K, P)."""
    geometry = dict(stride=stride, padding=padding, dilation=dilation)
    columns = F.unfold(input, weight.shape[2:], **geometry)
    columns = columns.view(len(input), groups, 1, -1, columns.shape[-1])
    return columns - weight.reshape(
        1, groups, len(weight) // groups, -1, 1)


def output_shape(input: Tensor, weight: Tensor, stride: Extent = 1,
                 padding: Extent = 0, dilation: Extent = 1
                 ) -> tuple[int, int, int, int]:
    """(N, C_out, H_out, W_out) of a convolution."""
    size = [(extent + 2 * p - d * (k - 1) - 1) // s + 1
            for extent, k, s, p, d in zip(
                input.shape[2:], weight.shape[2:], _pair(stride),
                _pair(padding), _pair(dilation))]
    return (len(input), len(weight), *size)


def adder_conv2d(input: Tensor, weight: Tensor, stride: Extent = 1,
                 padding: Extent = 0, dilation: Extent = 1,
                 groups: int = 1, center: bool = False) -> Tensor:
    """Forward: (N, C_in, H, W) to (N, C_out, H_out, W_out).

    ``center`` takes off the mean over each group's filters.
    """
    difference = _differences(
        input, weight, stride, padding, dilation, groups)
    distance = difference.abs().sum(3)
    if center:
        distance = distance - distance.mean(2, keepdim=True)
    shape = output_shape(input, weight, stride, padding, dilation)
    return -distance.reshape(shape)


def adder_conv2d_backward(
        grad_output: Tensor, input: Tensor, weight: Tensor,
        stride: Extent = 1, padding: Extent = 0, dilation: Extent = 1,
        groups: int = 1, input_gradient: str = 'hardtanh',
        center: bool = False) -> tuple[Tensor, Tensor]:
    """Surrogate gradients (grad_input, grad_weight), raw and unscaled.

    dY/dW = X - W; dY/dX = clip(W - X, -1, 1), or sign(W - X) with
    ``input_gradient='sign'``. Those of a centered output meet grad_output
    less its mean over each group's filters, as the transpose of centering is
    centering.
    """
    difference = _differences(
        input, weight, stride, padding, dilation, groups)
    grad = grad_output.reshape(
        len(input), groups, len(weight) // groups, 1, -1)
    if center:
        grad = grad - grad.mean(2, keepdim=True)
    grad_weight = (difference * grad).sum((0, 4)).view_as(weight)
    clip = torch.sign if input_gradient == 'sign' else F.hardtanh
    columns = (clip(-difference) * grad).sum(2).flatten(1, 2)
    grad_input = F.fold(
        columns, input.shape[2:], weight.shape[2:], stride=stride,
        padding=padding, dilation=dilation)
    return grad_input, grad_weight
