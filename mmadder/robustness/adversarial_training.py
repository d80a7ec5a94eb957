"""Training on adversarial images (arXiv:1706.06083)."""
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmpretrain.models import BaseClassifier

from mmadder.errors import InputError
from mmadder.models import unwrap_model
from mmadder.statistics import find_norms

from .attacks import ALPHA, EPS, Attack
from .batch_statistics import batch_statistics
from .pixels import PixelClassifier


@HOOKS.register_module()
class AdversarialTrainingHook(Hook):
    """Train a classifier on adversarial images in place of its own.

    Before each step PGD attacks the batch, as the network sees it in
    training: batch norms that learn have the batch's statistics, of which the
    attack leaves no trace. In a config::

        custom_hooks = [dict(type='AdversarialTrainingHook', steps=3)]

    With three steps of PGD, which needs no gradients of weights, a step takes
    three times as long; logs count the attack as ``data_time``. Validation has
    the images as they are; ``tools/robustness.py`` tells what was gained.

    Args:
        eps, alpha: radius of the Linf ball and step, of pixels in [0, 1].
        steps: of PGD.
    Raises:
        InputError: numbers of another unit, a model that is no classifier,
            or images that are not uint8 or of several sizes.
    """

    priority = 'ABOVE_NORMAL'  # who watches a step does not see the attack

    def __init__(self, eps: float = EPS, alpha: float = 2 * ALPHA,
                 steps: int = 3):
        self.attack = Attack('PGD', eps=eps, alpha=alpha, steps=steps)

    def before_train(self, runner):
        model = unwrap_model(runner.model)
        if not isinstance(model, BaseClassifier):
            raise InputError('AdversarialTrainingHook: the model must be a '
                             'classifier of MMPretrain, got '
                             f'{type(model).__name__}')
        # Not a module of the model: no keys in checkpoints.
        self.pixels = PixelClassifier(model)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = data_batch['inputs']
        if not torch.is_tensor(images):
            sizes = {tuple(image.shape) for image in images}
            if len(sizes) > 1:
                raise InputError('AdversarialTrainingHook: the images of a '
                                 f'batch must have one size, got '
                                 f'{sorted(sizes)}; resize them in the '
                                 'training pipeline')
            images = torch.stack(images)
        if images.dtype != torch.uint8:
            raise InputError('AdversarialTrainingHook: images must be uint8, '
                             f'before any normalization, got {images.dtype}')
        model = self.pixels.model
        device = next(model.parameters()).device
        labels = torch.cat([sample.gt_label
                            for sample in data_batch['data_samples']])
        # Drawn anew in each step and process, and repeatable.
        seed = torch.randint(2**31, ()).item()
        norms = [norm for norm in find_norms(model) if norm.training]
        with batch_statistics(norms, 'r'):
            found = self.attack(
                self.pixels, self.pixels.from_uint8(images.to(device)),
                labels.to(device), seed)
        data_batch['inputs'] = self.pixels.to_loaded(found)
