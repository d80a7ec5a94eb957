"""Operators of inference: fused epilogue, and on the CPU 8-bit codes.

``torch.ops.mmadder.adder_conv2d_fused`` and ``adder_conv2d_int8`` end an
adder convolution, Y = -sum \\|X - W\\|, with the batch norm, shortcut and
ReLU that follow it::

    relu((Y - mean) * scale + bias + residual)

``center`` takes the mean over a group's filters off Y first. mean, scale and
bias are (C_out,), residual is shaped like the output or None. They have no
gradient. :mod:`mmadder.inference` puts them into models.
"""
import torch
from torch import Tensor

from .adder_conv2d import checked_output_size
from .extension import is_built


def pack_weight(weight: Tensor, groups: int = 1,
                shifted: bool = True) -> Tensor:
    """Lay a weight out as the kernels of its device read it.

    Args:
        weight (Tensor): (C_out, C_in / groups, K_h, K_w), float32; on the
            CPU uint8 codes, too.
        groups (int): of the convolution.
        shifted (bool): less what the weights of an input channel have in
            common, as ``adder_conv2d_fused`` takes them; a plan does not.
            Without effect on CUDA, where there is the exact form only.

    Returns:
        Tensor: one axis, weight's dtype and device; of use to this process
        only. On CUDA empty where no tile reads it: fewer than 8 filters or 2
        channels in a group.
    """
    return torch.ops.mmadder.adder_conv2d_pack_weight(
        weight, groups, shifted)


def _fake_pack_weight(weight, groups, shifted=True):
    return weight.new_empty(torch.ops.mmadder.adder_conv2d_packed_size(
        weight.shape, groups, weight.dtype == torch.uint8, weight.is_cuda))


def _fake_fused(input, weight, packed_weight, mean, scale, bias, residual,
                relu, stride, padding, dilation, groups, mode, center=False):
    return mean.new_empty(checked_output_size(
        input, weight, stride, padding, dilation, groups, center))


def _fake_int8(input, weight, packed_weight, code_scale, zero_point, mean,
               scale, bias, residual, relu, stride, padding, dilation,
               groups, center=False):
    return mean.new_empty(checked_output_size(
        input, weight, stride, padding, dilation, groups, center))


if is_built():
    torch.library.register_fake(
        'mmadder::adder_conv2d_pack_weight', _fake_pack_weight)
    torch.library.register_fake('mmadder::adder_conv2d_fused', _fake_fused)
    torch.library.register_fake('mmadder::adder_conv2d_int8', _fake_int8)
