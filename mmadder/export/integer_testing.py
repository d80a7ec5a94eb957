"""An integer network in place of a model of PyTorch, for its evaluators."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmadder.checkpoints.state_dict import compare_state_dict
from mmadder.errors import InputError
from mmadder.integer import IntegerNetwork, NativeNetwork

from .description import CLASSIFIER
from .file_predictor import FilePredictor
from .integer_file import float_part, picture_codes

Run = Callable[[Tensor], dict[str, Tensor]]


class IntegerPredictor(FilePredictor):
    """A model whose network is one of integers.

    What comes behind the tensors of the head is the model's own, in float:
    boxes, and the RoI head of a two-stage detector, whose weights the file
    has.

    Args:
        model: of the config that the file was exported with.
        source: file of ``tools/export_integer.py``, or what is in it.
        run: what computes the outputs from bytes (N, C, H, W); default: our
            kernels.
    Raises:
        InputError: see :meth:`IntegerNetwork.load`; or the file is of another
            kind of model.
    """

    def __init__(self, model: nn.Module, source: str | Path | IntegerNetwork,
                 run: Run | None = None):
        if isinstance(source, IntegerNetwork):
            network, path = source, 'the integer network'
        else:
            network, path = IntegerNetwork.load(source), source
        super().__init__(model, path, network.model)
        self.network = network
        self.run = run or NativeNetwork(network)
        kind = self.description.get('kind')
        if self.is_classifier != (kind == CLASSIFIER):
            raise InputError(f'{self.path} is a {kind}, the config has a '
                             f'{type(model).__name__}')
        self._require_heads(model)
        if hasattr(model, 'roi_head'):
            model.roi_head.load_state_dict(float_part(network))

    def _require_heads(self, model):
        """Raise InputError if the model's heads are not those of the file."""
        found = {name.partition('.')[0] for name in self.network.outputs}
        stages = 2 if 'neck' in found else 1
        own = 2 if hasattr(model, 'roi_head') else 1
        if not self.is_classifier and stages != own:
            raise InputError(
                f'{self.path} is a detector of {stages} stages, the config '
                f'has a {type(model).__name__}')
        difference = compare_state_dict(
            getattr(model, 'roi_head', nn.Module()), float_part(self.network))
        if difference:
            raise InputError(
                f'{self.path} does not fit the RoI head of the config:\n'
                f'  {difference}\n'
                'Use the config that it was exported with')

    def predict(self, inputs: Tensor, data_samples: list) -> list[Any]:
        """Return data samples with predictions."""
        found = self.run(picture_codes(
            inputs, **self.description['normalization']))
        values = {name: torch.from_numpy(
                      self.network.values(name, codes.numpy()))
                  for name, codes in found.items()}
        if self.is_classifier:
            return self.model.head._get_predictions(
                values['logits'].flatten(1), data_samples)
        return self.model.add_pred_to_datasample(
            data_samples, self._boxes(values, data_samples))

    def _boxes(self, values, data_samples):
        levels = {}
        for name, value in values.items():
            levels.setdefault(name.partition('.')[0], []).append(value)
        features = levels.pop('neck', None)
        metas = [sample.metainfo for sample in data_samples]
        if features is None:
            return self.model.bbox_head.predict_by_feat(
                **levels, batch_img_metas=metas, rescale=True)
        proposals = self.model.rpn_head.predict_by_feat(
            **levels, batch_img_metas=metas, rescale=False)
        return self.model.roi_head.predict(
            features, proposals, data_samples, rescale=True)
