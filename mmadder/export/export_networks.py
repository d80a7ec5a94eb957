"""Classifiers and the dense part of detectors as tensors in, tensors out."""
import inspect

from mmdet.models.detectors import (
    SingleStageDetector,
    TwoStageDetector,
)
from mmdet.models.detectors.base import BaseDetector
from mmpretrain.models import BaseClassifier
from torch import Tensor, fx, nn

from mmadder.errors import InputError

from .onnx_graph import Network


class ClassifierNetwork(Network):
    """Normalized pictures (N, 3, H, W) to ``logits`` (N, classes)."""
    output_names = ('logits', )

    def __init__(self, model: BaseClassifier):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model(images, mode='tensor'),


class DenseNetwork(Network):
    """Normalized pictures to what the neck and the dense head give.

    Outputs are ``neck.0``, ``neck.1``, ... of a two-stage detector, and those
    of its RPN, or of the head of a single-stage one: ``cls_scores.0``, ...,
    ``bbox_preds.0``, ..., as MMDetection calls them, from the finest level
    to the coarsest.
    """

    def __init__(self, model: BaseDetector):
        super().__init__()
        self.model = model
        self.levels_of_neck = isinstance(model, TwoStageDetector)
        self.head = 'rpn_head' if self.levels_of_neck else 'bbox_head'

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.model.extract_feat(images)
        named = {'neck': features} if self.levels_of_neck else {}
        head = getattr(self.model, self.head)
        named |= zip(inspect.signature(head.predict_by_feat).parameters,
                     head(features))
        tensors = {f'{name}.{i}': tensor
                   for name, levels in named.items()
                   for i, tensor in enumerate(levels or ())
                   if isinstance(tensor, Tensor | fx.Proxy)}
        self.output_names = tuple(tensors)
        return tuple(tensors.values())


def dense_network(model: nn.Module) -> Network:
    """What is exported of a model up to the tensors of its head.

    Args:
        model: a classifier of MMPretrain or a detector of MMDetection.
    Raises:
        InputError: another kind of model.
    """
    if isinstance(model, BaseClassifier):
        return ClassifierNetwork(model)
    if isinstance(model, (SingleStageDetector, TwoStageDetector)):
        return DenseNetwork(model)
    raise InputError(
        f'export: the model is a {type(model).__name__}; classifiers of '
        'MMPretrain and detectors of MMDetection with a dense head (single '
        'stage, or two with an RPN) can be exported')
