"""Shapes that every kernel of the adder convolution is tested with."""
from typing import NamedTuple

import torch


class Geometry(NamedTuple):
    """One convolution; channels are those of the whole tensor."""
    batch: int
    in_channels: int
    size: tuple
    out_channels: int
    kernel: tuple
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    groups: int = 1

    @property
    def arguments(self):
        return self[5:]

    def tensors(self, dtype=torch.float32, seed=0):
        """Random (input, weight, grad_output)."""
        generator = torch.Generator().manual_seed(seed)
        out_size = [
            (extent + 2 * p - d * (k - 1) - 1) // s + 1
            for extent, k, s, p, d in zip(
                self.size, self.kernel, self.stride, self.padding,
                self.dilation)]
        shapes = ((self.batch, self.in_channels, *self.size),
                  (self.out_channels, self.in_channels // self.groups,
                   *self.kernel),
                  (self.batch, self.out_channels, *out_size))
        return [torch.randn(shape, generator=generator, dtype=torch.float64)
                .to(dtype) for shape in shapes]


# Lopsided on purpose: whatever is swapped or rounded shows.
GEOMETRIES = [
    Geometry(1, 1, (1, 1), 1, (1, 1)),
    Geometry(2, 3, (9, 7), 5, (3, 2), (2, 1), (1, 0)),
    Geometry(2, 16, (8, 8), 16, (3, 3), (1, 1), (1, 1)),
    Geometry(3, 17, (6, 11), 33, (3, 3), (1, 1), (1, 1)),
    Geometry(1, 40, (5, 23), 18, (1, 1)),
    Geometry(2, 20, (10, 9), 12, (1, 1), (2, 2)),
    Geometry(2, 8, (13, 10), 6, (3, 3), (2, 2), (1, 1), groups=2),
    Geometry(1, 6, (7, 7), 6, (3, 3), (1, 1), (1, 1), groups=6),
    Geometry(2, 5, (12, 15), 7, (3, 2), (1, 2), (2, 1), (2, 3)),
    Geometry(1, 4, (17, 16), 9, (5, 3), (3, 3), (4, 2), (1, 2)),
    Geometry(1, 3, (4, 5), 2, (2, 2), (5, 4), (0, 3)),
    Geometry(2, 64, (7, 7), 48, (3, 3), (1, 1), (1, 1)),
    Geometry(7, 19, (3, 2), 21, (3, 2), (1, 1), (2, 1)),
    Geometry(1, 2, (40, 70), 3, (7, 7), (2, 2), (3, 3)),
]

# Tails of the CUDA tiles, both kinds of fetching, groups, classes without
# taps.
TILES = [
    Geometry(1, 16, (9, 10), 130, (3, 3), (1, 1), (1, 1)),
    Geometry(2, 48, (6, 7), 72, (3, 2), (2, 1), (1, 0)),
    Geometry(1, 130, (5, 7), 16, (3, 3), (2, 2), (1, 1)),
    Geometry(1, 80, (4, 4), 20, (3, 3), (1, 1), (1, 1)),
    Geometry(3, 24, (6, 5), 48, (3, 2), (1, 2), (0, 1), groups=2),
    Geometry(2, 32, (12, 11), 40, (1, 1), (2, 2)),
    Geometry(1, 16, (10, 9), 16, (3, 3), (3, 2), (1, 0), (2, 3)),
    Geometry(1, 12, (8, 8), 72, (1, 1)),
    Geometry(1, 16, (8, 7), 24, (6, 6), (1, 1), (3, 3)),  # more than 32 taps
    Geometry(2, 8, (4, 4), 8, (4, 4), (4, 4), groups=1),
]
