"""A classifier that also learns from the answers of a trained one."""
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn
from torch.nn import functional

from mmadder.checkpoints.classes import trained_classes
from mmadder.checkpoints.state_dict import load_network, read_checkpoint
from mmadder.errors import InputError
from mmadder.files import shipped

from ..build import build_model


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    r"""ImageClassifier with the loss of knowledge distillation beside its own.

    Adds :math:`\lambda T^2 KL(p_T \| q_T)`, with p and q the softmax of the
    teacher's and the student's logits over T ("Distilling the Knowledge in a
    Neural Network", arXiv:1503.02531). The teacher sees the same augmented
    images. PKKD (arXiv:2009.13044) distills adder networks from their
    convolutional twins, with features and a teacher that learns along; this
    is the part of it that needs no more than logits.

    The teacher is read when training begins. It is no part of the model:
    checkpoints are those of an ImageClassifier, and what runs, tests or
    exports them needs no teacher.

    Args:
        teacher_config: of a classifier; a path, or one below mmadder's own
            ``configs``.
        teacher_ckpt: its checkpoint; a path, or one below ``weights``.
        temperature: T.
        distill_weight: lambda.
        *args, **kwargs: of ImageClassifier.
    Raises:
        InputError: when training begins, if the teacher cannot be read, or
            has other normalization or classes (their names are compared by
            :class:`mmadder.engine.CheckpointCheckHook`).
    """

    def __init__(self, *args, teacher_config: str, teacher_ckpt: str,
                 temperature: float = 4., distill_weight: float = 1.,
                 **kwargs):
        super().__init__(*args, **kwargs)
        for name, value in dict(temperature=temperature,
                                distill_weight=distill_weight).items():
            if not value > 0:
                raise ValueError(f'{name} must be positive, got {value}')
        self.teacher_config, self.teacher_ckpt = teacher_config, teacher_ckpt
        self.temperature = temperature
        self.distill_weight = distill_weight
        self._teachers = []  # in a list, a module is no part of this one

    def teacher(self, device: torch.device | str) -> nn.Module:
        """Return the teacher on a device, in evaluation mode."""
        if not self._teachers:
            self._teachers.append(self._read_teacher())
        return self._teachers[0].to(device).eval()

    def teacher_classes(self) -> tuple[str, ...]:
        """Return the classes of the teacher, or (); it must exist."""
        return trained_classes(read_checkpoint(
            str(_find(self.teacher_ckpt, 'teacher_ckpt'))))

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        logits = []
        handle = self.head.register_forward_hook(
            lambda head, args, output: logits.append(output))
        try:
            losses = super().loss(inputs, data_samples)
        finally:
            handle.remove()
        teacher = self.teacher(inputs.device)
        with torch.no_grad():
            wanted = teacher.head(teacher.extract_feat(inputs))
        if wanted.shape != logits[0].shape:
            raise InputError(
                f'DistilledClassifier: the teacher answers with '
                f'{wanted.shape[1]} classes, the student with '
                f'{logits[0].shape[1]}')
        losses['loss_distill'] = (
            self.distill_weight * self.temperature**2 * functional.kl_div(
                *(functional.log_softmax(values.float() / self.temperature, 1)
                  for values in (logits[0], wanted)),
                reduction='batchmean', log_target=True))
        return losses

    def _read_teacher(self):
        config = _find(self.teacher_config, 'teacher_config')
        teacher = build_model(Config.fromfile(config))
        if not isinstance(teacher, ImageClassifier):
            raise InputError('DistilledClassifier: teacher_config '
                             f'{self.teacher_config} is no classifier')
        load_network(
            teacher, str(_find(self.teacher_ckpt, 'teacher_ckpt')))
        own, its = (model.data_preprocessor
                    for model in (self, teacher))
        for name in ('mean', 'std'):
            values = [getattr(part, name, None) for part in (own, its)]
            if not _equal(*values):
                raise InputError(
                    f'DistilledClassifier: {name} of the data_preprocessor '
                    f'is {_listed(values[0])} and {_listed(values[1])} of '
                    'the teacher, which would see other images')
        turned = [getattr(part, 'to_rgb', False) for part in (own, its)]
        if turned[0] != turned[1]:
            raise InputError(
                'DistilledClassifier: to_rgb of the data_preprocessor is '
                f'{turned[0]} and {turned[1]} of the teacher, which would see '
                'the channels in another order')
        return teacher.requires_grad_(False)


def _find(path, name):
    if Path(path).is_file():
        return path
    folder, *rest = Path(path).parts
    if folder in ('configs', 'weights') and rest:
        found = shipped(folder).joinpath(*rest)
        if found.is_file():
            return found
    raise InputError(f'DistilledClassifier: {name} {path} does not exist')


def _equal(a, b):
    if a is None or b is None:
        return a is b
    return torch.equal(a.cpu(), b.cpu())


def _listed(values):
    return None if values is None else values.flatten().tolist()
