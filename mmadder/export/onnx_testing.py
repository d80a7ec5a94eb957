"""An ONNX file in place of a model of PyTorch, for its evaluators."""
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmadder.checkpoints.classes import differing_classes
from mmadder.errors import InputError

from .onnx_file import CLASSIFIER, DENSE, OnnxModel, padded


class OnnxPredictor(BaseModel):
    """A model whose network is an ONNX file.

    ``test_step`` gives the data samples of MMPretrain or MMDetection, so
    their evaluators and hooks take it as any model.

    Args:
        model: of the config that the file was exported with; its data
            preprocessor and what it makes of logits are used.
        path: file of ``tools/export_onnx.py``.
    Raises:
        InputError: see :class:`OnnxModel`; or the file has no predictions, or
            those of another kind of model.
    """

    def __init__(self, model: nn.Module, path: str | Path):
        super().__init__(data_preprocessor=model.data_preprocessor)
        self.path, self.onnx = path, OnnxModel(path)
        kind = self.onnx.description['kind']
        if kind == DENSE:
            raise InputError(
                f'{path} ends with the tensors of a head, which are no '
                'predictions: export the detector without --dense')
        self.is_classifier = hasattr(getattr(model, 'head', None),
                                     '_get_predictions')
        if self.is_classifier != (kind == CLASSIFIER):
            raise InputError(f'{path} is a {kind}, the config has a '
                             f'{type(model).__name__}')
        # No submodules: there is nothing to load or to move.
        self.__dict__['model'] = model.eval()

    def require_classes(self, dataset: BaseDataset) -> None:
        """Raise InputError if the file is for other classes than a dataset.
        """
        difference = differing_classes(
            tuple(self.onnx.description['classes']), dataset)
        if difference:
            raise InputError(
                f'{self.path} is for other classes than the dataset: '
                f'{difference}; use the config that it was exported with'
                .replace('in the checkpoint', 'in the file'))

    @torch.no_grad()
    def forward(self, inputs: Tensor, data_samples: list | None = None,
                mode: str = 'predict') -> list[Any]:
        """Return data samples with predictions; ``mode`` is 'predict'."""
        if mode != 'predict':
            raise RuntimeError(f'an ONNX file can only predict, not {mode}')
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
