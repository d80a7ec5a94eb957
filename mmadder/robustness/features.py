"""How far an attack drives features from what batch norms have tracked.

Mode R divides by the tracked variance, so nothing bounds features whose
variance an attack raises: each layer hands more on to the next one.
"""

from collections.abc import Callable

import torch
from torch import nn

from mmadder.statistics import find_norms


@torch.no_grad()
def norm_inputs(model: nn.Module, forward: Callable) -> list[dict]:
    """Compare what batch norms get with what they have tracked.

    Args:
        model: its batch norms that track are looked at.
        forward: runs the model once.
    Returns:
        Per norm, in the order of their first use, 'layer', its name;
        'spread', standard deviation over the batch divided by the tracked
        one, median over channels; and 'common', the share in [0, 1] of the
        variance (of channels divided by their tracked deviation) in which
        all channels move alike.
    """
    names = {norm: name for name, norm in model.named_modules()}
    found = {}

    def look(norm, inputs):
        if norm not in found:
            found[norm] = dict(layer=names[norm], **_compare(norm, inputs[0]))

    handles = [norm.register_forward_pre_hook(look)
               for norm in find_norms(model)]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def _compare(norm, features):
    channels = features.detach().transpose(0, 1).flatten(1)
    tracked = (norm.running_var + norm.eps).sqrt()
    channels = channels.to(tracked) / tracked[:, None]
    variance = channels.var(1, unbiased=False)
    alike = channels.mean(0).var(unbiased=False)
    return dict(spread=variance.sqrt().median().item(),
                common=(alike / variance.mean().clamp_min(1e-12)).item())
