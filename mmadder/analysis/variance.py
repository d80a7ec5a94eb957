r"""Mean and variance of adder outputs: Eq. 4-9 and 13-16 of the paper.

"Towards Stable and Robust AdderNets" (NeurIPS 2021), sections 3 and 4. An
input x = max(0, N(0, sigma^2)) meets weights from a Laplace distribution of
mean mu and scale b, in n taps. Each docstring says where its formula holds.

Eq. 12, the gradient of adaptive weight normalization, is not here: as printed
it is not the derivative of Eq. 11 (1/n^2 must be 1/n, W_j - W_c must be
W_j - mu, and the last divisor sigma^2). The layers use PyTorch's gradient.

Arguments are floats, arrays or tensors of float64 with one shape.
"""
import math

import numpy as np
import torch

# Floats, arrays or tensors: what an equation takes it returns.
Number = float | np.ndarray | torch.Tensor


def rectified_mean(sigma: Number) -> Number:
    """Eq. 4: mean of max(0, z), z from N(0, sigma^2): sigma / sqrt(2 pi).

    Exact. A shortcut that is added before the ReLU, or a batch norm with a
    bias, gives another distribution.
    """
    return sigma / math.sqrt(2 * math.pi)


def rectified_var(sigma: Number) -> Number:
    """Eq. 5: variance of max(0, z), sigma^2 (1/2 - 1 / (2 pi)). Exact."""
    return sigma**2 * (0.5 - 0.5 / math.pi)


def difference(sigma: Number, mu: Number, b: Number) -> tuple[Number, Number]:
    """Text before Eq. 6: x - W as a Laplace distribution.

    Mean and variance are exact, the shape is not: x - W is Laplace only in
    the limit of a small sigma.

    Returns:
        tuple: tau_mu, its mean; B = b + tau_sigma, its scale.
    """
    tau = rectified_mean(sigma) - mu
    return tau, np.sqrt(b**2 + rectified_var(sigma) / 2)


def folded_moments(tau: Number, scale: Number) -> tuple[Number, Number]:
    """Exact mean and variance of abs(z), z from a Laplace distribution.

    Not in the paper: what Eq. 7 and 8 bound.

    Args:
        tau, scale: mean and scale of z.
    Returns:
        tuple: E = abs(tau) + B exp(-abs(tau) / B), and
        tau^2 + 2 B^2 - E^2.
    """
    mean = abs(tau) + scale * np.exp(-abs(tau) / scale)
    return mean, tau**2 + 2 * scale**2 - mean**2


def output_mean_bound(n: Number, tau: Number, scale: Number) -> Number:
    """Eq. 7: a lower bound of the output's mean, -n (B + abs(tau)).

    Holds if E abs(x - W - tau) <= B. A Laplace distribution has B, a normal
    one of the same variance 1.13 B: there the mean can lie below. Close to
    the tracked mean of batch norm while abs(tau) is small.
    """
    return -n * (scale + abs(tau))


def output_var_bound(n: Number, tau: Number, scale: Number) -> Number:
    """Eq. 8: a lower bound of the output's variance, n (B^2 - 2 abs(tau) B).

    The algebra is right, but for weights that are drawn anew for each output.
    Batch norm sees one channel, whose weights are fixed: there only x varies,
    and :func:`channel_var_bound` holds instead, whatever b is. Eq. 8 is near
    the variance of all channels pooled. Negative, so no bound at all, where
    abs(tau) > B / 2.
    """
    return n * (scale**2 - 2 * abs(tau) * scale)


def channel_var_bound(n: Number, input_var: Number) -> Number:
    """Upper bound of the variance that batch norm sees: n Var(x).

    Not in the paper. abs(x - w) is 1-Lipschitz in x, so its variance is at
    most that of x. Holds for independent taps; the sum over correlated taps,
    such as neighbouring pixels, can vary up to n times as much.
    """
    return n * input_var


def normalize_with_bounds(y: Number, n: Number, tau: Number, scale: Number,
                          gamma: Number = 1., beta: Number = 0.) -> Number:
    """Eq. 9: batch norm with Eq. 7 and 8 in place of mean and variance.

    Bounds stand in for moments, so the output has neither mean beta nor
    deviation gamma.

    Raises:
        ValueError: Eq. 8 is not positive.
    """
    var = output_var_bound(n, tau, scale)
    if np.any(np.asarray(var) <= 0):
        raise ValueError('Eq. 8 is not positive for abs(tau) >= B / 2, got '
                         f'tau={tau} and B={scale}: there is no Eq. 9')
    return gamma * (y - output_mean_bound(n, tau, scale)) / np.sqrt(
        var) + beta


def disturbance_cnn(weight: Number, delta: Number) -> Number:
    """Eq. 13: change of a convolution's output when x becomes x - delta.

    Args:
        weight, delta: (..., n).
    Returns:
        (...). Exact.
    """
    return (-delta * weight).sum(-1)


def disturbance_ann(input: Number, weight: Number, delta: Number) -> Number:
    """Eq. 13: change of an adder's output when x becomes x - delta.

    Args:
        input, weight, delta: (..., n).
    Returns:
        (...). Exact; each tap gives +-abs(delta) where delta does
        not reach past the weight, and less where it does.
    """
    return (abs(input - weight) - abs(input - delta - weight)).sum(-1)


def disturbance_var_cnn(n: Number, delta_sigma: Number, weight_mean: Number,
                        weight_var: Number) -> Number:
    """Eq. 14, first line: n s^2 (Var W + E[W]^2), s = delta_sigma.

    Exact for independent delta of mean 0.
    """
    return n * delta_sigma**2 * (weight_var + weight_mean**2)


def disturbance_var_ann(n: Number, delta_sigma: Number) -> Number:
    """Eq. 14, second line: n s^2 (1 - 2 / pi).

    Only for a delta whose every tap has the sign of x - W; the output then
    also shifts, by :func:`aligned_shift`. A random delta gives
    :func:`random_disturbance_var_ann`, 2.75 times as much.
    """
    return n * delta_sigma**2 * (1 - 2 / math.pi)


def aligned_shift(n: Number, delta_sigma: Number) -> Number:
    """Mean shift of an adder under aligned delta: n s sqrt(2 / pi)."""
    return n * delta_sigma * math.sqrt(2 / math.pi)


def random_disturbance_var_ann(n: Number, delta_sigma: Number) -> Number:
    """Variance of an adder's change under random delta: n s^2.

    The change of each tap is -sign(x - W) delta, for delta smaller than
    abs(x - W); larger ones make it less.
    """
    return n * delta_sigma**2


def next_disturbance_var(disturbance_var: Number,
                         output_var: Number) -> Number:
    """Eq. 15: variance of the disturbance behind batch norm.

    Args:
        disturbance_var: of Eq. 14.
        output_var: variance that batch norm divides by: that of one channel,
            not Eq. 8.
    """
    return disturbance_var / output_var


def normalize_disturbed(y: Number, n: Number, tau: Number, scale: Number,
                        delta_mean: Number, gamma: Number = 1.,
                        beta: Number = 0.) -> Number:
    """Eq. 16: Eq. 9 when x has become x - delta.

    tau becomes tau - E[delta] in both bounds. Limits are those of Eq. 9; the
    paper's last step also needs a mean shift of exactly n abs(E[delta]).
    """
    return normalize_with_bounds(y, n, tau - delta_mean, scale, gamma, beta)
