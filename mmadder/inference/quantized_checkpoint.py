"""Quantized models as checkpoints."""
import pickle
from pathlib import Path

import torch
from torch import nn

from mmadder.files import save_checkpoint

MARK = 'mmadder_quantized'  # in a checkpoint's meta: bits


def save_quantized(model: nn.Module, path: str,
                   meta: dict | None = None) -> None:
    """Write a model of :func:`mmadder.inference.quantize`.

    Args:
        path: file to write; whole or not at all.
        meta: goes into the checkpoint's meta, such as ``dataset_meta``.
    """
    save_checkpoint(dict(meta={**(meta or {}), MARK: 8},
                         state_dict=model.state_dict()), path)


def is_quantized(path: str | Path) -> bool:
    """Whether a checkpoint file holds a quantized model."""
    if '://' in str(path):
        return False
    # Only ours are plain tensors and numbers; others may need unpickling.
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True,
                                mmap=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return False
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    return isinstance(meta, dict) and MARK in meta
