"""An ONNX file in place of a model of PyTorch, for its evaluators."""
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmadder.errors import InputError

from .description import CLASSIFIER, DENSE
from .file_predictor import FilePredictor
from .onnx_file import OnnxModel, padded


class OnnxPredictor(FilePredictor):
    """A model whose network is an ONNX file.

    Args:
        model: of the config that the file was exported with; its data
            preprocessor and what it makes of logits are used.
        path: file of ``tools/export_onnx.py``.
    Raises:
        InputError: see :class:`OnnxModel`; or the file has no predictions, or
            those of another kind of model.
    """

    def __init__(self, model: nn.Module, path: str | Path):
        onnx = OnnxModel(path)
        super().__init__(model, path, onnx.description)
        self.onnx = onnx
        kind = self.description['kind']
        if kind == DENSE:
            raise InputError(
                f'{path} ends with the tensors of a head, which are no '
                'predictions: export the detector without --dense')
        if self.is_classifier != (kind == CLASSIFIER):
            raise InputError(f'{path} is a {kind}, the config has a '
                             f'{type(model).__name__}')

    def predict(self, inputs: Tensor, data_samples: list) -> list[Any]:
        """Return data samples with predictions."""
        inputs = padded(inputs, self.onnx.size)
        if self.is_classifier:
            return self.model.head._get_predictions(
                self.onnx(inputs)['logits'], data_samples)
        found = self.onnx(inputs, picture_sizes(data_samples))
        results = [boxes_of(found, i, sample.scale_factor)
                   for i, sample in enumerate(data_samples)]
        return self.model.add_pred_to_datasample(data_samples, results)


def picture_sizes(data_samples: list) -> Tensor:
    """Heights and widths (N, 2), int64, of pictures before padding."""
    return torch.tensor([sample.img_shape[:2] for sample in data_samples])


def boxes_of(found: dict[str, Tensor], index: int,
             scale_factor: tuple[float, float] = (1., 1.)) -> InstanceData:
    """The boxes that a file found in one picture of a batch.

    Args:
        found: outputs of a detector.
        index: of the picture.
        scale_factor: (w, h) by which the picture was resized, to undo it.
    """
    rows = found['labels'][index] >= 0
    return InstanceData(
        bboxes=found['boxes'][index][rows]
        / torch.tensor(scale_factor, dtype=torch.float32).repeat(2),
        scores=found['scores'][index][rows],
        labels=found['labels'][index][rows])
