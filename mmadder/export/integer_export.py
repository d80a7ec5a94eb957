"""From a config and a checkpoint to the file of an integer network."""
import copy
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.models import BaseClassifier
from torch import Tensor, nn

from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.state_dict import read_checkpoint
from mmadder.errors import InputError
from mmadder.files import require_writable
from mmadder.inference import fuse_adder_bn
from mmadder.integer import IntegerNetwork, NativeNetwork
from mmadder.layers import find_adders

from .description import (
    CLASSIFIER,
    DETECTOR,
    configured_classes,
    describe,
    innermost_dataset,
)
from .export_networks import dense_network
from .integer_file import FLOAT, SUFFIX, is_integer, picture_codes
from .integer_graph import IntegerGraph
from .integer_lowering import calibrate, lower
from .onnx_export import load_float_model
from .onnx_graph import Network

BATCHES = 10


@dataclasses.dataclass
class Deviation:
    """Of one output on the first calibration batch.

    Attributes:
        output: its name.
        spread: standard deviation of the float values.
        error: root mean square of the difference.
    """
    output: str
    spread: float
    error: float


def export_integer(cfg: Config, checkpoint: str, out: str | Path, *,
                   batches: int = BATCHES, bits: int = 8,
                   shift_only: bool = False,
                   size: tuple[int, int] | None = None,
                   progress: bool = True) -> list[Deviation]:
    """Write the integer network of a trained model.

    Args:
        cfg: of MMPretrain or MMDetection; its validation pictures calibrate.
        checkpoint: of this config, in float.
        out: file to write, ending with .npz; whole or not at all.
        batches: of validation pictures, to calibrate with.
        bits: see :func:`lower`; ``shift_only`` too.
        size: height and width, if the file is to take no other pictures.
        progress: show a bar.
    Returns:
        How far the outputs are from those in float.
    Raises:
        InputError: the model has a module without a step in integers, is no
            float checkpoint, there are no pictures, or fewer bits are asked
            of a model without adders.
    """
    if not is_integer(out):
        raise InputError(f'{out}: expected a name that ends with {SUFFIX}')
    require_writable(out)
    model = load_float_model(cfg, checkpoint)
    pictures = _pictures(cfg, model, batches)
    first = next(pictures, None)
    if first is None:
        raise InputError('calibration: the validation set has no pictures')
    classes = trained_classes(read_checkpoint(checkpoint)) or \
        configured_classes(cfg)
    kind = CLASSIFIER if isinstance(model, BaseClassifier) else DETECTOR
    description = describe(model, cfg, kind, classes, bits)
    description['channel_order'] = _channel_order(cfg, description)
    fused = _fused(model, bits, shift_only)
    network = to_integers(
        fused, itertools.chain([first], pictures), bits=bits,
        shift_only=shift_only, size=size, description=description,
        total=batches, progress=progress)
    deviations = _deviations(network, fused, first)
    network.save(out)
    return deviations


def to_integers(model: nn.Module, batches: Iterable[Tensor], *,
                description: dict[str, Any], bits: int = 8,
                shift_only: bool = False,
                size: tuple[int, int] | None = None,
                total: int | None = None,
                progress: bool = True) -> IntegerNetwork:
    """The integer network of a fused model.

    Args:
        model: classifier of MMPretrain or detector of MMDetection, fused
            (:func:`mmadder.inference.fuse_adder_bn`).
        batches: normalized pictures (N, C, H, W), to calibrate with.
        description: what the file says of itself; ``normalization`` has mean
            and std of the pictures.
        bits: see :func:`lower`; ``shift_only`` and ``size`` too.
        total: number of batches, for the bar.
        progress: show a bar.
    Returns:
        The network, with the RoI head of a two-stage detector in float.
    Raises:
        InputError: see :class:`IntegerGraph`, :func:`calibrate` and
            :func:`lower`.
    """
    graph = IntegerGraph(_named(model))
    norm = description['normalization']
    network = lower(
        graph, calibrate(graph, batches, total, progress),
        mean=torch.tensor(norm['mean']), std=torch.tensor(norm['std']),
        bits=bits, shift_only=shift_only, size=size, model=description)
    if hasattr(model, 'roi_head'):
        network.arrays.update(
            (FLOAT + name, tensor.numpy())
            for name, tensor in model.roi_head.state_dict().items())
    return network


def _fused(model: nn.Module, bits: int, shift_only: bool) -> nn.Module:
    """The model as it is written; a twin of convolutions is as it was."""
    if find_adders(model):
        return fuse_adder_bn(model)
    if bits != 8 or shift_only:
        raise InputError(
            f'bits ({bits}) and shift_only are for adders, of which '
            f'{type(model).__name__} has none: its convolutions have 8 bits')
    return model


def _named(model: nn.Module) -> Network:
    """A model's network with the names of its outputs."""
    network = dense_network(model)
    with torch.no_grad():
        network(*network.example((256, 256)))  # which sets them
    return network


def _pictures(cfg: Config, model: nn.Module, batches: int) -> Iterator[Tensor]:
    """Normalized batches of the validation set."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    for batch in itertools.islice(loader, batches):
        yield model.data_preprocessor(batch, False)['inputs']


def _channel_order(cfg, description):
    """Of the bytes that the network takes."""
    dataset = innermost_dataset(cfg.val_dataloader.dataset)
    loads = any('LoadImageFromFile' in str(step['type'])
                for step in dataset.get('pipeline', ()))
    # OpenCV's order; CIFAR-10's arrays are RGB.
    is_rgb = loads == description['normalization']['swap_channels']
    return 'RGB' if is_rgb else 'BGR'


def _deviations(network: IntegerNetwork, model: nn.Module,
                images: Tensor) -> list[Deviation]:
    with torch.no_grad():
        expected = dense_network(model)(images)
    network = copy.copy(network)
    network.size = None  # these pictures may have another
    found = NativeNetwork(network)(picture_codes(
        images, **network.model['normalization']))
    deviations = []
    for (name, codes), value in zip(found.items(), expected):
        values = torch.from_numpy(network.values(name, codes.numpy()))
        deviations.append(Deviation(
            name, value.std().item(),
            (values.view_as(value) - value).square().mean().sqrt().item()))
    return deviations
