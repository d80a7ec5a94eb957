"""AdderNet's adaptive local learning rate (arXiv:1912.13200, Section 3.3).

A function of its own, so that it can stand between the adder operator, whose
gradients are raw, and the backward of a weight norm, which then sees the
scaled gradient.
"""
import math

import torch

EPS = 1e-12  # smallest norm to divide by, as in AdderNet's code

# A tensor: torch.compile would bake a number into the backward graph.
_loss_scale = torch.ones(())


def local_gradient_scaling(weight, eta=0.2):
    r"""Return ``weight``; give its gradient g the root mean square ``eta``.

    .. math:: g' = s \, \frac{\eta \sqrt{k}}{\max(\|g\|, 10^{-12})} \, g

    with k the number of elements and the norm taken over all of them. The
    result does not depend on the size of the loss, so whatever the loss is
    multiplied with before ``backward`` must be said: s is the number given to
    :func:`set_loss_scale`. A GradScaler's unscaling then leaves the root mean
    square ``eta``, and the sum over m micro-batches, each with s = 1/m, is
    the mean of m scaled gradients.

    A gradient of zeros stays zero. One with NaN or infinite elements keeps
    some, for a GradScaler to see, and one whose squares overflow float32
    (elements of 1e17) becomes NaN. The gradient keeps its dtype: a float16
    one overflows with the usual scale 65536, so keep weights in float32 and
    use autocast.

    Args:
        weight (Tensor): (C_out, ...), floating point, two or more axes.
        eta (float): positive; 0.2 in AdderNet.

    Returns:
        Tensor: a view of ``weight``.
    """
    return _LocalGradientScaling.apply(weight, eta)


def set_loss_scale(scale):
    """Say what the loss is multiplied with before ``backward``.

    ``LossScaleHook`` does this in MMEngine's runner. A training loop of one's
    own calls it before each backward with the GradScaler's scale divided by
    the number of micro-batches that are accumulated.

    Args:
        scale (float): positive and finite; 1 at the start.

    Raises:
        ValueError: another number.
    """
    if not 0 < scale < math.inf:
        raise ValueError(
            f'scale of the loss must be positive and finite, got {scale}')
    _loss_scale.fill_(scale)


def get_loss_scale():
    """Return the factor of :func:`set_loss_scale` as a float."""
    return _loss_scale.item()


class _LocalGradientScaling(torch.autograd.Function):

    @staticmethod
    def forward(ctx, weight, eta):
        ctx.eta = eta
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, grad_weight):
        norm = _norm(grad_weight)
        rms = _loss_scale * ctx.eta
        scale = rms * math.sqrt(grad_weight.numel()) / norm.clamp(min=EPS)
        scale = scale.masked_fill(norm.isinf(), math.nan)
        dtype = _at_least_float32(grad_weight)
        scaled = grad_weight.to(dtype) * scale.to(dtype)
        return scaled.to(grad_weight.dtype), None


def _norm(tensor):
    """Norm in float64 of the filters' norms in float32: fast and exact."""
    filters = torch.linalg.vector_norm(
        tensor.flatten(1), dim=1, dtype=_at_least_float32(tensor))
    return torch.linalg.vector_norm(filters, dtype=torch.float64)


def _at_least_float32(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)
