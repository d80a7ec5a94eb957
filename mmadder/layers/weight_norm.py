"""Weight Standardization and Adaptive Weight Normalization.

"Towards Stable and Robust AdderNets" (NeurIPS 2021), Eq. 10 and 11, with two
choices that the paper leaves open: eps is 1e-5 inside the root, and gradients
are PyTorch's, because the printed Eq. 12 is not the derivative of Eq. 11.
"""
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn


def adaptive_weight_norm(weight: Tensor, nu: Tensor | None,
                         upsilon: Tensor | None, eps: float = 1e-5) -> Tensor:
    r"""Give each filter the mean ``upsilon`` and the scale ``nu``.

    .. math:: W'_c = \nu_c \frac{W_c - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}}
        + \upsilon_c

    with mean and biased variance over all taps of filter c (Eq. 11).

    Args:
        weight: (C_out, ...), floating point, two or more axes.
        nu, upsilon: (C_out,), weight's dtype; None is the
            same as ones and zeros.
        eps: added to the variance. A filter of one tap has none and
            becomes ``upsilon``, up to rounding.

    Returns:
        Weight's shape and dtype.
    """
    # The filters are the groups of one sample: a single kernel each way.
    return torch.group_norm(
        weight.flatten(1).unsqueeze(0), weight.shape[0], nu, upsilon,
        eps).view_as(weight)


def weight_standardization(weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Give each filter mean 0 and variance 1 (Eq. 10).

    Args:
        weight: (C_out, ...), floating point, two or more axes.
        eps: added to the variance.

    Returns:
        Weight's shape and dtype.
    """
    return adaptive_weight_norm(weight, None, None, eps)


@MODELS.register_module()
class WS(nn.Module):
    """Weight Standardization of a layer's weight; nothing to train.

    Args:
        out_channels: not used; the signature is that of :class:`AWN`.
        eps: added to the variance.
    Input:
        (out_channels, ...), the weight.
    Returns:
        The same shape.
    """

    def __init__(self, out_channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps

    def forward(self, weight: Tensor) -> Tensor:
        return weight_standardization(weight, self.eps)

    def extra_repr(self) -> str:
        return f'eps={self.eps}'


@MODELS.register_module()
class AWN(nn.Module):
    """Adaptive Weight Normalization of a layer's weight.

    Scale ``nu`` and shift ``upsilon`` of each filter are trained; the paper
    multiplies their learning rate by 1e-5 (Section 5.1).

    Args:
        out_channels: filters.
        nu, upsilon: initial values. 1 and 0 keep a weight drawn from
            N(0, 1) almost as it is.
        eps: added to the variance.
    Input:
        (out_channels, ...), the weight.
    Returns:
        The same shape.
    """

    def __init__(self, out_channels: int, nu: float = 1.0,
                 upsilon: float = 0.0, eps: float = 1e-5):
        super().__init__()
        self.initial_values = nu, upsilon
        self.eps = eps
        self.nu = nn.Parameter(torch.empty(out_channels))
        self.upsilon = nn.Parameter(torch.empty(out_channels))
        self.init_weights()

    def init_weights(self) -> None:
        """Set ``nu`` and ``upsilon`` to their initial values."""
        nu, upsilon = self.initial_values
        nn.init.constant_(self.nu, nu)
        nn.init.constant_(self.upsilon, upsilon)

    def forward(self, weight: Tensor) -> Tensor:
        return adaptive_weight_norm(weight, self.nu, self.upsilon, self.eps)

    def extra_repr(self) -> str:
        nu, upsilon = self.initial_values
        return (f'{len(self.nu)}, nu={nu}, upsilon={upsilon}, '
                f'eps={self.eps}')
