"""AdderNet's adaptive local learning rate (arXiv:1912.13200, Section 3.3).

A function of its own, so that it can stand between the adder operator, whose
gradients are raw, and the backward of a weight norm, which then sees the
scaled gradient.
"""
import math

import torch
import torch.distributed as dist
from torch import Tensor

from mmadder.ops.adder_conv2d import require_plain_gradient

EPS = 1e-12  # smallest norm to divide by, as in AdderNet's code

# A tensor: torch.compile would bake a number into the backward graph.
_loss_scale = torch.ones((), dtype=torch.float64)
_averaging_group = None


def local_gradient_scaling(weight: Tensor, eta: float = 0.2) -> Tensor:
    r"""Return ``weight``; give its gradient g the root mean square ``eta``.

    .. math:: g' = s \, \frac{\eta \sqrt{k}}{\max(\|g\|, 10^{-12})} \, g

    with k the number of elements and the norm taken over all of them. The
    result does not depend on the size of the loss, so whatever the loss is
    multiplied with before ``backward`` must be said: s is the number given to
    :func:`set_loss_scale`. A GradScaler's unscaling then leaves the root mean
    square ``eta``, and the sum over m micro-batches, each with s = 1/m, is
    the mean of m scaled gradients.

    Under DistributedDataParallel each process scales the gradient of its own
    batch, as in AdderNet's code, and their mean is smaller where they
    disagree. :func:`set_averaging_group` takes the mean first.

    A gradient of zeros stays zero. One with NaN or infinite elements keeps
    some, for a GradScaler to see, and one whose squares overflow float32
    (elements of 1e17) becomes NaN. The gradient keeps its dtype: a float16
    one overflows with the usual scale 65536, so keep weights in float32 and
    use autocast.

    Args:
        weight: (C_out, ...), floating point, two or more axes.
        eta: positive; 0.2 in AdderNet.

    Returns:
        A view of ``weight``.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight.view_as(weight)  # torch.jit.save takes no other
    require_plain_gradient(weight)
    return _LocalGradientScaling.apply(weight, eta)


def set_loss_scale(scale: float) -> None:
    """Say what the loss is multiplied with before ``backward``.

    ``LossScaleHook`` does this in MMEngine's runner. A training loop of one's
    own calls it before each backward with the GradScaler's scale divided by
    the number of micro-batches that are accumulated.

    Args:
        scale: positive and finite; 1 at the start.

    Raises:
        ValueError: another number.
    """
    if not 0 < scale < math.inf:
        raise ValueError(
            f'scale of the loss must be positive and finite, got {scale}')
    _loss_scale.fill_(scale)


def get_loss_scale() -> float:
    """Return the factor of :func:`set_loss_scale`."""
    return _loss_scale.item()


def set_averaging_group(group: dist.ProcessGroup | None) -> None:
    """Average gradients over processes before they are scaled.

    Then a weight norm behind the scaling sees what one process would see that
    has the batches of all, and g' has the root mean square ``eta`` on every
    process. ``LossScaleHook(average_gradients=True)`` does this in MMEngine's
    runner. In a training loop of one's own::

        set_averaging_group(torch.distributed.new_group())

    Each backward then waits for one all-reduce per use of a layer. So all
    processes must use the same layers in the same order, and have the same
    scale of the loss. The group must not be that of
    DistributedDataParallel, whose own all-reduces overlap with the backward.

    Args:
        group: None, as at the start, averages nothing.

    Raises:
        TypeError: something else, such as what ``new_group`` returns to a
            process that is no member.
    """
    global _averaging_group
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            'group of processes must be a ProcessGroup with this process in '
            f'it, or None, got {group!r}')
    _averaging_group = group


def get_averaging_group() -> dist.ProcessGroup | None:
    """Return the group of :func:`set_averaging_group`."""
    return _averaging_group


class _LocalGradientScaling(torch.autograd.Function):

    @staticmethod
    def forward(ctx, weight, eta):
        ctx.eta = eta
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad_weight):
        gradient = grad_weight.to(_at_least_float32(grad_weight))
        if _averaging_group is not None:
            gradient = _average(gradient, _averaging_group)
        norm = _norm(gradient)
        rms = _loss_scale * ctx.eta
        scale = rms * math.sqrt(gradient.numel()) / norm.clamp(min=EPS)
        # Zero times an infinite norm is NaN: few launches on a GPU.
        scaled = gradient * scale.add(norm, alpha=0)
        return scaled.to(grad_weight.dtype), None


def _average(tensor, group):
    """Return the mean over the ranks of a group; NaN and infinity spread."""
    mean = (tensor / group.size()).contiguous()
    dist.all_reduce(mean, group=group)
    return mean


def _norm(tensor):
    """Norm in float64 of the filters' norms in float32: fast and exact."""
    filters = torch.linalg.vector_norm(tensor.flatten(1), dim=1)
    return torch.linalg.vector_norm(filters, dtype=torch.float64)


def _at_least_float32(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)
