"""Time of adder layers on a GPU, calculated from instruction counts.

A model, not a measurement: every SM busy, no wait for memory. Its value is to
compare kernels and to know the ceiling.
"""
from collections.abc import Sequence
from typing import NamedTuple

from .shapes import Layer


class Gpu(NamedTuple):
    """Throughput of one GPU; lanes are per SM and clock."""
    name: str
    arch: str
    sms: int
    clock: float  # Hz, boost
    fp32_lanes: int
    issue_lanes: int = 128  # four warps of 32 threads

    def terms_per_second(self, instructions: float,
                         arithmetic: float) -> float:
        """Terms of |x - w| for instructions and FP32 ones per term."""
        cycles = max(instructions / self.issue_lanes,
                     arithmetic / self.fp32_lanes)
        return self.sms * self.clock / cycles


A100 = Gpu('A100 SXM', 'sm_80', 108, 1.41e9, 64)
H100 = Gpu('H100 SXM', 'sm_90', 132, 1.98e9, 128)
GPUS = (A100, H100)
# cuDNN's float32 convolution without TF32, as a share of the FFMA ceiling.
WEIGHT_GRAD_SHARE = 0.7


def seconds(layers: Sequence[Layer], images: int, gpu: Gpu,
            loops: dict) -> dict[str, float]:
    """{'forward', 'input_grad', 'weight_grad': seconds}.

    Args:
        layers: all of a network, of one group each.
        images: whose work is added up.
        gpu: whose throughput counts.
        loops: (op, tile rows) to (instructions, FP32 instructions) per term
            of the float32 kernels.
    """
    total = dict.fromkeys(('forward', 'input_grad', 'weight_grad'), 0.)
    for layer in layers:
        terms = images * layer.terms // layer.batch
        for op, rows, tiles in (
                ('forward', layer.out_channels, (32, 64, 128)),
                ('input_grad', layer.in_channels, (64, 128))):
            tile = next((t for t in tiles if rows <= t), tiles[-1])
            padded = -(-rows // tile) * tile / rows
            total[op] += terms * padded / gpu.terms_per_second(
                *loops[op, tile])
        total['weight_grad'] += terms / (
            WEIGHT_GRAD_SHARE * gpu.sms * gpu.clock * gpu.fp32_lanes)
    return total
