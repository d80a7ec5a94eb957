"""What rounding to float16 and bfloat16 does to the outputs of adders."""
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmadder.layers import AdderConv2d
from mmadder.ops import adder_conv2d

HALF_TYPES = (torch.float16, torch.bfloat16)


def rounding_noise(output: Tensor, dtype: torch.dtype) -> float:
    """Noise of rounding, in units of what batch norm takes for the signal.

    Args:
        output: (N, C, H, W), float32.
        dtype: that it is rounded to.
    Returns:
        Root of the mean over channels of (mean squared change of a value /
        variance of the channel); channels that never change are left out.
    """
    change = (output.to(dtype).float() - output).square().mean((0, 2, 3))
    var = output.var((0, 2, 3), correction=0)
    varied = var > 0
    return (change[varied] / var[varied]).mean().sqrt().item()


@torch.no_grad()
def study_model(model: nn.Module, run: Callable[[], object]) -> list[dict]:
    """Round the outputs of each adder of a model, as they are and centered.

    Args:
        model: in evaluation mode, float32; its adders are at t = 1.
        run: calls the model once.
    Returns:
        Per call of a layer ``layer``, ``taps``, ``mean`` and ``deviation``
        of the raw output (root mean square over channels), and ``raw`` and
        ``centered``: dtype to :func:`rounding_noise`. A layer with one filter
        in a group has no ``centered``.
    """
    rows = []

    def look(name, layer, args):
        row = dict(layer=name, taps=layer.weight[0].numel())
        geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        for kind in ('raw', 'centered'):
            if kind == 'centered' and layer.out_channels == layer.groups:
                continue
            output = adder_conv2d(
                args[0].float(), layer.normalized_weight.float(), None,
                *geometry, mode='exact', center=kind == 'centered')
            row[kind] = {dtype: rounding_noise(output, dtype)
                         for dtype in HALF_TYPES}
            if kind == 'raw':
                var = output.var((0, 2, 3), correction=0)
                row.update(mean=output.mean().item(),
                           deviation=var.mean().sqrt().item())
        rows.append(row)

    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, args, name=name: look(name, layer, args))
        for name, layer in model.named_modules()
        if isinstance(layer, AdderConv2d)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return rows


def name_of(dtype: torch.dtype) -> str:
    """Return 'float16' of torch.float16."""
    return str(dtype).removeprefix('torch.')


def table(rows: list[dict]) -> tuple[tuple, list[tuple]]:
    """Header and rows of :func:`study_model`, for the terminal."""
    names = [f'{kind}, {name_of(dtype)}'
             for kind in ('raw', 'centered') for dtype in HALF_TYPES]
    return ('layer', 'taps', 'mean of y', 'deviation', *names), [
        (row['layer'], row['taps'], row['mean'], row['deviation'], *(
            f'{row[kind][dtype]:.2%}' if kind in row else '-'
            for kind in ('raw', 'centered') for dtype in HALF_TYPES))
        for row in rows]
