"""From a config and a checkpoint to an ONNX file that was compared."""
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from torch import Tensor, nn

from mmadder.analysis.testing import test_batch
from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.state_dict import load_pretrained, read_checkpoint
from mmadder.errors import InputError
from mmadder.files import require_file, require_writable, whole_file
from mmadder.inference import is_quantized
from mmadder.models import build_model

from .description import (
    CLASSIFIER,
    DENSE,
    DETECTOR,
    configured_classes,
    describe,
)
from .detector_networks import detector_network
from .export_networks import ClassifierNetwork, dense_network
from .onnx_file import FORMAT_VERSION, SUFFIX, add_metadata, is_onnx
from .onnx_graph import OPSET, Network, to_onnx
from .onnx_parity import TOLERANCE, Parity, compare
from .packages import require_packages

PICTURES = 8


def export_onnx(cfg: Config, checkpoint: str, out: str | Path, *,
                size: tuple[int, int] | None = None,
                dynamic_size: bool = False, dense: bool = False,
                opset: int = OPSET, pictures: int = PICTURES,
                tolerance: float = TOLERANCE,
                report: Callable[[Parity], None] | None = None) -> Parity:
    """Write an ONNX file, unless it computes something else than PyTorch.

    Args:
        cfg: of MMPretrain or MMDetection; its test data are needed.
        checkpoint: of this config, in float.
        out: file to write, ending with .onnx; whole or not at all.
        size: height and width of the pictures that it takes; default: those
            of the test set behind its pipeline. Smaller ones are padded.
        dynamic_size: it takes pictures of any size.
        dense: of a detector, export up to the tensors of its dense head.
        opset: version of ONNX's operators.
        pictures: of the test set, on which both are compared.
        tolerance: see :func:`compare`.
        report: gets the comparison, also where it fails.
    Returns:
        The comparison.
    Raises:
        InputError: the model cannot be exported, see :func:`to_onnx`; or the
            file deviates, which then is not there.
    """
    require_packages()
    if not is_onnx(out):
        raise InputError(f'{out}: expected a name that ends with {SUFFIX}')
    require_writable(out)
    model = load_float_model(cfg, checkpoint)
    network, kind = _network(model, dense)
    inputs, samples = _pictures(cfg, model, pictures)
    found = tuple(inputs.shape[2:])
    size = size or found
    if not dynamic_size and any(map(int.__gt__, found, size)):
        raise InputError(
            f'the pictures of the test set are {found[0]}x{found[1]} (height '
            f'x width) behind their pipeline, larger than {size[0]}x{size[1]}'
            ': give a larger --input-size, or --dynamic-size')
    onnx = to_onnx(network, size, dynamic_size=dynamic_size, opset=opset)
    classes = trained_classes(read_checkpoint(checkpoint)) or \
        configured_classes(cfg)
    add_metadata(onnx, dict(format_version=FORMAT_VERSION, **describe(
        model, cfg, kind, classes)))
    with whole_file(out) as partial:
        partial.write_bytes(onnx.SerializeToString())
        parity = compare(model, network, partial, inputs, samples, tolerance)
        if report:
            report(parity)
        parity.require()
    return parity


def load_float_model(cfg: Config, checkpoint: str) -> nn.Module:
    """A config's model with a checkpoint's weights, in evaluation mode.

    Raises:
        InputError: no such file, or one in 8 bits.
    """
    require_file(checkpoint, 'checkpoint')
    if is_quantized(checkpoint):
        raise InputError(
            f'{checkpoint} is in 8 bits, which cannot be exported: give the '
            'checkpoint that it was quantized from')
    model = build_model(cfg)
    load_pretrained(model, checkpoint)
    model.eval()
    return model


def _network(model: nn.Module, dense: bool) -> tuple[Network, str]:
    network = dense_network(model)
    if isinstance(network, ClassifierNetwork):
        return network, CLASSIFIER
    return (network, DENSE) if dense else (detector_network(model), DETECTOR)


def _pictures(cfg: Config, model: nn.Module,
              count: int) -> tuple[Tensor, list]:
    """Random pictures of the test set, normalized and padded as one batch."""
    if not cfg.get('test_dataloader'):
        raise InputError('the config has no test_dataloader, with whose '
                         'pictures the ONNX file is compared')
    data = model.data_preprocessor(test_batch(cfg, count), False)
    return data['inputs'], data['data_samples']
