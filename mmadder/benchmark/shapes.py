"""Layers of networks: what the operators are timed on."""
from typing import NamedTuple


class Layer(NamedTuple):
    """A square convolution with padding kernel // 2."""
    batch: int
    in_channels: int
    size: tuple[int, int]  # of the input, (height, width)
    out_channels: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> tuple[int, int]:
        return tuple((extent + 2 * self.padding - self.kernel) // self.stride +
                     1 for extent in self.size)

    @property
    def terms(self) -> int:
        """Of the sums of |x - w| in one forward pass; a convolution's MACs."""
        height, width = self.out_size
        return (self.batch * self.out_channels * height * width *
                self.in_channels // self.groups * self.kernel**2)

    def __str__(self) -> str:
        height, width = self.size
        return (f'{self.batch}x{self.in_channels}x{height}x{width} '
                f'{self.kernel}x{self.kernel} {self.out_channels}'
                f'{f" /{self.stride}" if self.stride > 1 else ""}'
                f'{f", {self.groups} groups" if self.groups > 1 else ""}')


def targets() -> list[Layer]:
    """Shapes of several networks and batches, over which targets are set."""
    return [
        Layer(32, 16, (32, 32), 16, 3),
        Layer(32, 32, (16, 16), 32, 3),
        Layer(32, 64, (8, 8), 64, 3),
        Layer(4, 64, (56, 56), 64, 3),
        Layer(4, 128, (28, 28), 128, 3),
        Layer(4, 256, (14, 14), 256, 3),
        Layer(4, 512, (7, 7), 512, 3),
        Layer(1, 256, (100, 100), 256, 3),
        Layer(4, 64, (56, 56), 256, 1),
        Layer(1, 512, (25, 25), 256, 1),
        Layer(4, 128, (56, 56), 128, 3, 2),
    ]


def resnet18(batch: int = 4,
             size: tuple[int, int] = (224, 224)) -> list[Layer]:
    """All adder layers of AdderResNet-18, those of its blocks.

    Args:
        size: of the images, (height, width).
    """
    return _basic_blocks(batch, _shrink(size, 4), (64, 128, 256, 512), 2)


def resnet20(batch: int = 256,
             size: tuple[int, int] = (32, 32)) -> list[Layer]:
    """All adder layers of AdderResNetCIFAR-20, those of its blocks."""
    return _basic_blocks(batch, size, (16, 32, 64), 3)


def fpn(batch: int = 1, size: tuple[int, int] = (608, 1024)) -> list[Layer]:
    """All layers of AdderFPN behind ResNet-18: laterals and outputs."""
    layers = []
    for stage, channels in enumerate((64, 128, 256, 512)):
        features = _shrink(size, 4 * 2**stage)
        layers += [Layer(batch, channels, features, 256, 1),
                   Layer(batch, 256, features, 256, 3)]
    return layers


def _basic_blocks(batch, size, widths, blocks):
    """Layers of stages that halve the size, all but the first."""
    layers, before = [], widths[0]
    for width in widths:
        convolutions = 2 * blocks
        if width != before:
            layers += [Layer(batch, before, size, width, 3, 2),
                       Layer(batch, before, size, width, 1, 2)]
            size = layers[-1].out_size
            convolutions -= 1
        layers += [Layer(batch, width, size, width, 3)] * convolutions
        before = width
    return layers


def _shrink(size, stride):
    return tuple(-(-extent // stride) for extent in size)


SHAPE_SETS = dict(
    targets=targets, resnet18=resnet18, fpn=fpn, resnet20=resnet20)


def distinct_layers(name: str, batch: int | None = None) -> list[Layer]:
    """What is timed of a shape set: each of its layers once.

    Args:
        name: a key of SHAPE_SETS.
        batch: images, by default as in training or inference of the network.
    """
    make = SHAPE_SETS[name]
    return list(dict.fromkeys(make() if batch is None else make(batch)))
