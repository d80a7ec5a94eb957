"""ONNX files of mmadder: what they say about themselves, and how they run."""
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmadder.errors import InputError
from mmadder.files import require_file

from .packages import require_packages

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = 1
PREFIX = 'mmadder.'  # of the keys in a file's metadata
SUFFIX = '.onnx'


def add_metadata(model: 'onnx.ModelProto',
                 description: dict[str, Any]) -> None:
    """Write a description into a model; text as it is, the rest as JSON."""
    for key, value in description.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=PREFIX + key, value=text)


def is_onnx(path: str | Path) -> bool:
    """Whether a file is one of ONNX, by its name."""
    return str(path).endswith(SUFFIX)


class OnnxModel:
    """A file of ``tools/export_onnx.py`` in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        threads: of its operators; default: as many as PyTorch has.
    Attributes:
        description: of :func:`describe`, read from the file.
    Raises:
        InputError: no such file, not one of ours, or of another version.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        require_packages()
        require_file(path, 'ONNX file')
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider'])
        # Its errors have no base class of their own, and are RuntimeErrors
        # in some versions only.
        except Exception as error:
            raise InputError(f'{path} cannot be read as an ONNX file: '
                             f'{str(error).splitlines()[0]}') from error
        self.description = _read(
            self.session.get_modelmeta().custom_metadata_map, path)
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        # The height and width that it takes, None where any will do.
        self.size = tuple(extent if isinstance(extent, int) else None
                          for extent in self.session.get_inputs()[0].shape[2:])

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run it.

        Args:
            inputs: (N, 3, H, W), normalized; of a detector, also (N, 2)
                int64, heights and widths before padding.
        Returns:
            Outputs by their names.
        Raises:
            InputError: the file is for pictures of another size.
        """
        size = tuple(inputs[0].shape[2:])
        if any(own not in (None, given)
               for own, given in zip(self.size, size)):
            raise InputError(
                f'the ONNX file takes pictures of {_written(self.size)}, got '
                f'{_written(size)} (height x width): export it with '
                '--dynamic-size, or with --input-size HEIGHT WIDTH')
        found = self.session.run(None, {
            name: np.ascontiguousarray(tensor.cpu().numpy())
            for name, tensor in zip(self.inputs, inputs)})
        return dict(zip(self.outputs, map(torch.from_numpy, found)))


def padded(images: Tensor, size: tuple[int | None, int | None]) -> Tensor:
    """Pad pictures (N, 3, H, W) at the bottom and right up to a size.

    Normalized pictures are padded with zeros, as a batch of them is. A side
    that is None, or smaller than the picture, stays.
    """
    bottom, right = (0 if extent is None else max(0, extent - own)
                     for extent, own in zip(size, images.shape[2:]))
    return F.pad(images, (0, right, 0, bottom))


def _written(size):
    return 'x'.join('any' if extent is None else str(extent)
                    for extent in size)


def _read(metadata, path):
    texts = {key.removeprefix(PREFIX): text
             for key, text in metadata.items() if key.startswith(PREFIX)}
    if 'format_version' not in texts:
        raise InputError(f'{path} was not written by tools/export_onnx.py: '
                         'it has no format version of mmadder')
    if texts['format_version'] != str(FORMAT_VERSION):
        raise InputError(
            f'{path} has format version {texts["format_version"]}, this '
            f'mmadder reads {FORMAT_VERSION}: export it again')
    plain = ('version', 'kind', 'variant', 'config')
    return {key: text if key in plain else json.loads(text)
            for key, text in texts.items()}
