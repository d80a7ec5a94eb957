"""Layers that the operators are timed on."""
from typing import NamedTuple


class Layer(NamedTuple):
    """A square convolution with padding kernel // 2."""
    batch: int
    in_channels: int
    size: tuple  # (height, width)
    out_channels: int
    kernel: int
    stride: int = 1

    @property
    def padding(self):
        return self.kernel // 2

    @property
    def out_size(self):
        return tuple((extent + 2 * self.padding - self.kernel) // self.stride +
                     1 for extent in self.size)

    @property
    def elements(self):
        """Pairs |x - w| of one forward pass; a convolution's MACs."""
        height, width = self.out_size
        return (self.batch * self.out_channels * height * width *
                self.in_channels * self.kernel**2)

    def __str__(self):
        height, width = self.size
        return (f'{self.batch}x{self.in_channels}x{height}x{width} '
                f'{self.kernel}x{self.kernel} {self.out_channels}'
                f'{f" /{self.stride}" if self.stride > 1 else ""}')


def targets():
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


def resnet18(batch=4):
    """The distinct adder layers of ResNet-18 on 224x224 images."""
    layers = [Layer(batch, 64, (56, 56), 64, 3)]
    for channels, size in ((64, 56), (128, 28), (256, 14)):
        size = (size, size)
        layers += [Layer(batch, channels, size, 2 * channels, 3, 2),
                   Layer(batch, channels, size, 2 * channels, 1, 2)]
        size = layers[-1].out_size
        layers.append(Layer(batch, 2 * channels, size, 2 * channels, 3))
    return layers


def fpn(batch=1):
    """Laterals and outputs of ResNet-18's FPN on a 608x1024 image."""
    layers = []
    for level, channels in enumerate((64, 128, 256, 512)):
        size = (608 >> level + 2, 1024 >> level + 2)
        layers += [Layer(batch, channels, size, 256, 1),
                   Layer(batch, 256, size, 256, 3)]
    return layers


def resnet20(batch=256):
    """The distinct adder layers of ResNet-20 on CIFAR's 32x32 images."""
    layers = [Layer(batch, 16, (32, 32), 16, 3)]
    for channels, size in ((16, 32), (32, 16)):
        size = (size, size)
        layers += [Layer(batch, channels, size, 2 * channels, 3, 2),
                   Layer(batch, channels, size, 2 * channels, 1, 2)]
        size = layers[-1].out_size
        layers.append(Layer(batch, 2 * channels, size, 2 * channels, 3))
    return layers


SHAPE_SETS = dict(
    targets=targets, resnet18=resnet18, fpn=fpn, resnet20=resnet20)
