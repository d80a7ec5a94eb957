"""Models with statistics to normalize with, without training them."""
import torch
from torch import nn


def settle(model, *inputs, run=None):
    """Give batch norms statistics and lopsided parameters; evaluate.

    Args:
        run (Callable): takes the inputs in place of the model.
    """
    norms = [module for module in model.modules()
             if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of all batches
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    model.train()
    with torch.no_grad():
        (run or model)(*inputs)
    model.eval()
    return model


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()
