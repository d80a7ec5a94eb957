"""The oracle of the other tests, by hand."""
import torch
from geometries import GEOMETRIES

from mmadder.ops import reference


def test_reference_forward_by_hand():
    """X = 0..8, W = ones: windows 0134, 1245, 3467, 4578."""
    x = torch.arange(9.).view(1, 1, 3, 3)
    y = reference.adder_conv2d(x, torch.ones(1, 1, 2, 2))
    assert y.flatten().tolist() == [-6, -8, -16, -20]


def test_reference_backward_by_hand():
    """One tap: x = 3, w = .5, g = 2."""
    x, w, g = (torch.full((1, 1, 1, 1), v) for v in (3., .5, 2.))
    grad_x, grad_w = reference.adder_conv2d_backward(g, x, w)
    assert grad_x.item() == -2  # clip(.5 - 3) * 2
    assert grad_w.item() == 5  # (3 - .5) * 2


def test_reference_is_minus_the_l1_distance():
    x, w, _ = GEOMETRIES[1].tensors(torch.float64)
    y = reference.adder_conv2d(x, w, *GEOMETRIES[1].arguments)
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1))
    window = padded[1, :, 2:5, 3:5]  # output (1, :, 1, 3)
    expected = -(window - w).abs().sum((1, 2, 3))
    torch.testing.assert_close(y[1, :, 1, 3], expected)
