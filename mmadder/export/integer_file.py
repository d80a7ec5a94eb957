"""Integer networks as files beside the config that they were made with."""
from pathlib import Path

import torch
from torch import Tensor

from mmadder.integer import IntegerNetwork

SUFFIX = '.npz'
FLOAT = 'float/'  # arrays of what stays in float: a detector's RoI head


def is_integer(path: str | Path) -> bool:
    """Whether a file is an integer network, by its name."""
    return str(path).endswith(SUFFIX)


def float_part(network: IntegerNetwork) -> dict[str, Tensor]:
    """The state dict of the RoI head, {} if there is none."""
    return {name.removeprefix(FLOAT): torch.from_numpy(array)
            for name, array in network.arrays.items()
            if name.startswith(FLOAT)}


def picture_codes(inputs: Tensor, mean: list[float], std: list[float],
                  **_) -> Tensor:
    """The bytes (N, C, H, W) of normalized pictures.

    Args:
        inputs: (N, C, H, W).
        mean, std: that they were normalized with.
    """
    mean, std = (torch.tensor(v, device=inputs.device).view(-1, 1, 1)
                 for v in (mean, std))
    return (inputs * std + mean).round().clamp(0, 255).to(torch.uint8)
