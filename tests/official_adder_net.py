"""AdderNet's networks as modules: an oracle with the keys of its code.

Written from the paper (arXiv:1912.13200) and the names and shapes in the
published checkpoints; the adder is spelled out by broadcasting.
"""
import torch
from torch import nn
from torch.nn import functional


class Adder2d(nn.Module):

    def __init__(self, in_channels, out_channels, size, stride=1):
        super().__init__()
        self.size, self.stride = size, stride
        self.adder = nn.Parameter(
            torch.randn(out_channels, in_channels, size, size))

    def forward(self, x):
        pad = self.size // 2
        x = functional.pad(x, (pad, pad, pad, pad))
        windows = x.unfold(2, self.size, self.stride).unfold(
            3, self.size, self.stride)  # (N, C, H, W, K, K)
        scores = [-(windows - filter[:, None, None]).abs().sum((1, 4, 5))
                  for filter in self.adder]
        return torch.stack(scores, 1)


class Block(nn.Module):
    """Basic, or bottleneck with four times the channels."""

    def __init__(self, in_channels, channels, stride, expansion):
        super().__init__()
        layers = [(in_channels, channels, 3, stride),
                  (channels, channels, 3, 1)]
        if expansion == 4:
            layers = [(in_channels, channels, 1, 1),
                      (channels, channels, 3, stride),
                      (channels, channels * 4, 1, 1)]
        self.depth = len(layers)
        for i, layer in enumerate(layers, 1):
            self.add_module(f'conv{i}', Adder2d(*layer))
            self.add_module(f'bn{i}', nn.BatchNorm2d(layer[1]))
        out_channels = channels * expansion
        self.downsample = nn.Sequential(
            Adder2d(in_channels, out_channels, 1, stride),
            nn.BatchNorm2d(out_channels)) \
            if stride > 1 or in_channels != out_channels else None

    def forward(self, x):
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(out))
            if i < self.depth:
                out = functional.relu(out)
        if self.downsample is not None:
            x = self.downsample(x)
        return functional.relu(out + x)


class AdderNet(nn.Module):

    def __init__(self, stages, width, expansion, num_classes, cifar):
        super().__init__()
        self.cifar = cifar
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False) if cifar \
            else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(stages)
        in_channels = width
        for i, count in enumerate(stages):
            channels = width * 2 ** i
            blocks = []
            for j in range(count):
                stride = 2 if i and not j else 1
                blocks.append(Block(in_channels, channels, stride, expansion))
                in_channels = channels * expansion
            self.add_module(f'layer{i + 1}', nn.Sequential(*blocks))
        self.fc = nn.Conv2d(in_channels, num_classes, 1, bias=not cifar)
        self.bn2 = nn.BatchNorm2d(num_classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        if not self.cifar:
            x = functional.max_pool2d(x, 3, 2, 1)
        for i in range(self.stages):
            x = getattr(self, f'layer{i + 1}')(x)
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.bn2(self.fc(x)).flatten(1)


def make_adder_net(depth, num_classes=None):
    """ResNet-20 for CIFAR or ResNet-50, weights and statistics random."""
    torch.manual_seed(depth)
    model = AdderNet((3, 3, 3), 16, 1, num_classes or 10, cifar=True) \
        if depth == 20 else \
        AdderNet((3, 4, 6, 3), 64, 4, num_classes or 12, cifar=False)
    # Statistics of its own features, else no input gets through.
    momenta = {m: m.momentum for m in model.modules()
               if isinstance(m, nn.BatchNorm2d)}
    for norm in momenta:
        nn.init.uniform_(norm.weight, .5, 1.5)
        nn.init.normal_(norm.bias, std=.5)
        norm.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    return model.eval()
