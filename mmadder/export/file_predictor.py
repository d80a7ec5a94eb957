"""A file in place of a model of PyTorch, for its evaluators."""
import abc
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmadder.checkpoints.classes import differing_classes
from mmadder.errors import InputError


class FilePredictor(BaseModel):
    """A model whose network is a file.

    ``test_step`` gives the data samples of MMPretrain or MMDetection, so
    their evaluators and hooks take it as any model.

    What comes behind the network runs on the CPU, as the network does.

    Args:
        model: of the config that the file was exported with; moved there.
        path: the file.
        description: that the file has of itself
            (:func:`mmadder.export.description.describe`).
    """

    def __init__(self, model: nn.Module, path: str | Path,
                 description: dict[str, Any]):
        model.cpu()
        super().__init__(data_preprocessor=model.data_preprocessor)
        self.path, self.description = path, description
        self.is_classifier = hasattr(getattr(model, 'head', None),
                                     '_get_predictions')
        # No submodules: there is nothing to load or to move.
        self.__dict__['model'] = model.eval()

    def require_classes(self, dataset: BaseDataset) -> None:
        """Raise InputError if the file is for other classes than a dataset.
        """
        difference = differing_classes(
            tuple(self.description.get('classes') or ()), dataset)
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
            raise RuntimeError(f'a file can only predict, not {mode}')
        return self.predict(inputs.cpu(), data_samples)

    @abc.abstractmethod
    def predict(self, inputs: Tensor, data_samples: list) -> list[Any]:
        """Return data samples with predictions."""
