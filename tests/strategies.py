"""Random convolutions for hypothesis, small enough for the reference."""
import math

import torch
from geometries import Geometry
from hypothesis import strategies as st

# Differences x - w that the reference holds at once.
MOST_DIFFERENCES = 400_000


def _differences(geometry):
    (n, ic, (h, w), oc, (kh, kw), (sh, sw), (ph, pw), (dh, dw),
     groups) = geometry
    out_h = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    out_w = (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    return n * oc * (ic // groups) * kh * kw * out_h * out_w


def _extents(largest, kernels):
    """(size, kernel, stride, padding, dilation) of one axis that fit."""

    @st.composite
    def axis(draw):
        kernel, dilation = draw(kernels), draw(st.integers(1, 3))
        padding = draw(st.integers(0, dilation * kernel))
        span = dilation * (kernel - 1) + 1
        size = draw(st.integers(max(1, span - 2 * padding), largest + span))
        return size, kernel, draw(st.integers(1, 4)), padding, dilation

    return axis()


@st.composite
def _convolution(draw, channels, rows, columns):
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    in_channels, out_channels = draw(channels), draw(channels)
    if draw(st.integers(0, 7)) == 0:  # depthwise, perhaps with a multiplier
        groups, in_channels = in_channels, 1
        out_channels = min(out_channels, 3)
    height, width = draw(rows), draw(columns)
    size, kernel, stride, padding, dilation = zip(height, width)
    return Geometry(
        draw(st.integers(1, 3)), groups * in_channels, size,
        groups * out_channels, kernel, stride, padding, dilation, groups)


def geometries():
    """Geometries with tails: of channels, of rows and columns, of all."""
    few = st.integers(1, 5)
    many = st.one_of(st.integers(1, 70),
                     st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65]))
    kernels = st.sampled_from([1, 1, 2, 3, 3, 4, 5])
    return st.one_of(
        _convolution(many, _extents(2, kernels), _extents(3, kernels)),
        _convolution(few, _extents(4, kernels), _extents(70, kernels)),
        _convolution(st.integers(1, 20), _extents(9, kernels),
                     _extents(9, kernels)),
    ).filter(lambda geometry: _differences(geometry) <= MOST_DIFFERENCES)


def _contiguous(tensor):
    return tensor.contiguous()


def _channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


def _off_alignment(tensor):
    """Begin one element past a vector's alignment."""
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return memory[1:].view_as(tensor).copy_(tensor)


def _every_other(tensor):
    """Neighbours in a row are two elements apart, rows have gaps."""
    shape = (*tensor.shape[:3], 2 * tensor.shape[3] + 1)
    memory = torch.full(shape, math.nan, dtype=tensor.dtype)
    return memory[..., 1::2].copy_(tensor)


def _rows_and_columns_swapped(tensor):
    return _copy(tensor.transpose(2, 3)).transpose(2, 3)


def _images_last(tensor):
    return _copy(tensor.movedim(0, 3)).movedim(3, 0)


def _odd_strides(tensor):
    """Of axes of size 1, which nobody steps along."""
    strides = [7 if size == 1 else stride for size, stride in zip(
        tensor.shape, _copy(tensor).stride())]
    return _copy(tensor).as_strided(tensor.shape, strides)


def _copy(tensor):  # of a size 1, contiguous() keeps any stride
    return tensor.clone(memory_format=torch.contiguous_format)


LAYOUTS = [_contiguous, _channels_last, _off_alignment, _every_other,
           _rows_and_columns_swapped, _images_last, _odd_strides]


@st.composite
def problems(draw, dtype=torch.float32):
    """(geometry, (input, weight, grad_output)) in any memory layout.

    Values are normal numbers of any scale, or small integers, which meet in
    ties x = w.
    """
    geometry = draw(geometries())
    tensors = geometry.tensors(dtype, seed=draw(st.integers(0, 99)))
    if draw(st.integers(0, 3)) == 0:
        tensors = [(2 * tensor).round() for tensor in tensors]
    else:
        for tensor in tensors:
            tensor *= 10.**draw(st.sampled_from([-6, -1, 0, 0, 0, 1, 6]))
    layouts = [draw(st.sampled_from(LAYOUTS)) for _ in tensors]
    return geometry, [
        layout(tensor) for layout, tensor in zip(layouts, tensors)]
