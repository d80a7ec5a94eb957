"""Time of adder layers on a GPU, calculated from instruction counts.

A model, not a measurement: every SM busy, no wait for memory. Its value is to
compare kernels and to know the ceiling.
"""
from typing import NamedTuple


class Gpu(NamedTuple):
    """Throughput of one GPU; lanes are per SM and clock."""
    name: str
    arch: str
    sms: int
    clock: float  # Hz, boost
    fp32_lanes: int
    issue_lanes: int = 128  # four warps of 32 threads

    def terms_per_second(self, instructions, arithmetic):
        """Terms of |x - w| for instructions and FP32 ones per term."""
        cycles = max(instructions / self.issue_lanes,
                     arithmetic / self.fp32_lanes)
        return self.sms * self.clock / cycles


A100 = Gpu('A100 SXM', 'sm_80', 108, 1.41e9, 64)
H100 = Gpu('H100 SXM', 'sm_90', 132, 1.98e9, 128)
GPUS = (A100, H100)
# cuDNN's float32 convolution without TF32, as a share of the FFMA ceiling.
WEIGHT_GRAD_SHARE = 0.7


class Layer(NamedTuple):
    """One 2-d adder layer; size of its output, (h, w)."""
    in_channels: int
    out_channels: int
    kernel: int
    size: tuple

    @property
    def terms(self):
        """Of one image."""
        return (self.in_channels * self.out_channels * self.kernel**2 *
                self.size[0] * self.size[1])


def resnet18_layers(height, width):
    """Adder layers of AdderResNet-18: all 3x3 and 1x1 of the blocks."""
    layers, in_channels = [], 64
    for stage, channels in enumerate((64, 128, 256, 512)):
        stride = 4 * 2**stage
        size = (-(-height // stride), -(-width // stride))
        layers.append(Layer(in_channels, channels, 3, size))
        layers += [Layer(channels, channels, 3, size)] * 3
        if in_channels != channels:
            layers.append(Layer(in_channels, channels, 1, size))
        in_channels = channels
    return layers


def fpn_layers(height, width, channels=256):
    """Adder layers of AdderFPN over stages 1 to 4 of ResNet-18."""
    layers = []
    for stage, in_channels in enumerate((64, 128, 256, 512)):
        stride = 4 * 2**stage
        size = (-(-height // stride), -(-width // stride))
        layers += [Layer(in_channels, channels, 1, size),
                   Layer(channels, channels, 3, size)]
    return layers


def seconds(layers, images, gpu, loops):
    """{'forward', 'input_grad', 'weight_grad': seconds}.

    Args:
        layers (list[Layer])
        images (int): whose work is added up.
        gpu (Gpu)
        loops (dict): (op, tile rows) to (instructions, FP32 instructions) per
            term of the float32 kernels.
    """
    total = dict.fromkeys(('forward', 'input_grad', 'weight_grad'), 0.)
    for layer in layers:
        for op, rows, tiles in (
                ('forward', layer.out_channels, (32, 64, 128)),
                ('input_grad', layer.in_channels, (64, 128))):
            tile = next((t for t in tiles if rows <= t), tiles[-1])
            padded = -(-rows // tile) * tile / rows
            total[op] += (images * layer.terms * padded /
                          gpu.terms_per_second(*loops[op, tile]))
        total['weight_grad'] += images * layer.terms / (
            WEIGHT_GRAD_SHARE * gpu.sms * gpu.clock * gpu.fp32_lanes)
    return total
