"""One call from Python: a trained network from its files, or by its name."""
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmadder.analysis.predictor import Predictor, require_scope
from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.safe_loading import data_only, trust
from mmadder.checkpoints.state_dict import load_network, read_checkpoint
from mmadder.cli import load_config, require_device
from mmadder.config_nodes import read_config
from mmadder.errors import InputError
from mmadder.export import (
    IntegerPredictor,
    OnnxPredictor,
    is_integer,
    is_onnx,
)
from mmadder.export.onnx_file import OnnxModel
from mmadder.files import require_file, shipped
from mmadder.inference import empty_quantized, is_quantized, make_plan
from mmadder.integer import IntegerNetwork
from mmadder.layers import find_adders
from mmadder.models import build_model

WEIGHTS = 'weights'


def load(source: str | Path | Config, checkpoint: str | Path | None = None,
         *, device: str = 'cpu', fuse: bool = True,
         trust_checkpoint: bool = False) -> Predictor:
    """A detector or classifier to call with pictures.

    Args:
        source: name of shipped weights, such as 'digits'; or a file of
            ``tools/export_integer.py`` or ``tools/export_onnx.py``, which has
            its config inside; or a config, as file or object.
        checkpoint: of that config: a checkpoint in float or 8 bits, or one of
            the exported files.
        device: of a checkpoint, such as 'cpu' or 'cuda:0'; exported files run
            on the CPU.
        fuse: run adders with their norms, shortcuts and ReLUs in one step, on
            the CPU by a plan. False: as they were trained.
        trust_checkpoint: let the checkpoint run code while it is read. By
            default files are data.

    Raises:
        InputError: no such name or file, or they do not fit each other.

    Example:
        >>> detector = load('digits')
        >>> sample = detector('scene.png')  # a DetDataSample
        >>> sample.pred_instances.bboxes
    """
    with data_only():
        if trust_checkpoint:
            trust()
        return _load(source, checkpoint, device, fuse)


def _load(source, checkpoint, device, fuse):
    if checkpoint is None:
        source = checkpoint = _exported(source)
        cfg = _config_inside(source)
    else:
        cfg = source if isinstance(source, Config) else load_config(
            str(source))
    require_scope(cfg)
    require_device(device)
    checkpoint = str(checkpoint)
    require_file(checkpoint, 'checkpoint')
    model = build_model(cfg)
    for recognizes, kind in ((is_onnx, OnnxPredictor),
                             (is_integer, IntegerPredictor)):
        if recognizes(checkpoint):
            predictor = kind(model, checkpoint)
            return Predictor(predictor, cfg,
                             predictor.description['classes'] or None)
    return Predictor(_trained(model, checkpoint, device, fuse), cfg,
                     trained_classes(read_checkpoint(checkpoint)))


def shipped_weights() -> dict[str, Path]:
    """Weights that come with mmadder, by their names."""
    return {path.stem: path
            for path in sorted(shipped(WEIGHTS).glob('*.npz'))}


def _exported(source) -> str:
    """The file of a name, or the file itself."""
    weights = shipped_weights()
    if str(source) in weights:
        return str(weights[str(source)])
    if isinstance(source, Config):
        raise InputError('mmadder.load: with a config, give its checkpoint '
                         'too')
    if not (is_onnx(source) or is_integer(source)):
        raise InputError(
            f'mmadder.load: {source!r} is neither shipped weights '
            f'({", ".join(weights)}) nor a file ending with .npz or .onnx: '
            'with a config, give its checkpoint too')
    require_file(source, 'file')
    return str(source)


def _config_inside(path):
    description = (OnnxModel(path).description if is_onnx(path)
                   else IntegerNetwork.load(path).model)
    if not description.get('config'):
        raise InputError(f'{path} has no config inside: give it with one, '
                         'mmadder.load(CONFIG, FILE)')
    return read_config(description['config'], path)


def _trained(model: nn.Module, checkpoint: str, device: str,
             fuse: bool) -> nn.Module:
    quantized = is_quantized(checkpoint)
    if quantized:
        model = empty_quantized(model)
    load_network(model, checkpoint)
    model = model.to(torch.device(device)).eval()
    if fuse and not quantized and find_adders(model):
        model = make_plan(model)
    return model
