"""Batch statistics in batch normalization at inference.

"Towards Stable and Robust AdderNets" (NeurIPS 2021), section 4 and Eq. 17: a
perturbation that shifts all features of a channel alike disappears when the
mean of the current batch is subtracted instead of the tracked one.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.errors import InputError
from mmadder.models import BNLogitsHead, unwrap_model
from mmadder.statistics import find_norms

ROBUST_MODES = ('R', 'r', 'max')
MIN_LABELS = 8  # fewer say nothing about how a batch was drawn

SIZE_WARNING = (
    'robust inference of one image: batch statistics are its own, and behind '
    'a batch norm on the logits every image gets the same scores. Use '
    'batches of about 100 mixed images')
SORTED_WARNING = (
    'robust inference of a batch with {found} of {classes} classes: it looks '
    'sorted by class. Batch statistics then remove what the images have in '
    'common, and accuracy falls, above all with mode r. Shuffle the images')


class RobustInferenceWarning(UserWarning):
    """The batch makes figures of robust inference meaningless."""


@contextlib.contextmanager
def robust_inference(
        model: nn.Module, mode: str = 'R', include_logit_bn: bool = True,
        detach_statistics: bool = False) -> Iterator[nn.Module]:
    r"""Let batch norms use the statistics of the current batch.

    With mean m and biased variance v of the batch, over (N, H, W), and the
    tracked variance rv, a norm computes

    .. math::
        R: \gamma \frac{y - m}{\sqrt{rv + \epsilon}} + \beta \qquad
        r: \gamma \frac{y - m}{\sqrt{v + \epsilon}} + \beta \qquad
        max: \gamma \frac{y - m}{\sqrt{\max(rv, v) + \epsilon}} + \beta

    in training and evaluation mode alike; r is the training-mode forward.
    'max' is not the paper's: as R where the batch varies no more than what
    was tracked, and bounded as r where it does, so that features cannot grow
    from layer to layer.
    Buffers never change. On leaving, also by an exception, the model is as
    it was. Predictions depend on the other images of the batch: use mixed
    batches of about 100. Batches of one image, and batches sorted by class
    (seen where ``data_samples`` have labels), give a RobustInferenceWarning.

    Args:
        model: of MMPretrain, MMDetection or plain PyTorch.
        mode: 'R', mean of the batch and tracked variance; 'r', both of
            the batch; 'max', mean of the batch and, per channel, the larger
            of both variances.
        include_logit_bn: also the norm of a ``BNLogitsHead``. Without
            it, the logits of AdderNet's networks keep tracked statistics.
        detach_statistics: hide from the gradient that the statistics
            depend on the images. The output is the same. For a stronger
            attacker: the gain of mode R is partly a weaker gradient.
    Yields:
        The model.
    Raises:
        InputError: unknown mode, or a model without such norms.
    Example:
        >>> with robust_inference(model, mode='R'):
        ...     results = model.test_step(batch)
    """
    if mode not in ROBUST_MODES:
        raise InputError('mode of robust inference must be one of '
                         f'{ROBUST_MODES}, got {mode!r}')
    norms = _changed_norms(model, include_logit_bn)
    handle = model.register_forward_pre_hook(_check_batch, with_kwargs=True)
    try:
        with batch_statistics(norms, mode, detach_statistics):
            yield model
    finally:
        handle.remove()


@contextlib.contextmanager
def batch_statistics(norms: Sequence[_BatchNorm], mode: str,
                     detach: bool = False) -> Iterator[None]:
    """:func:`robust_inference` of some norms, which track statistics."""
    before = [vars(norm).get('forward') for norm in norms]
    try:
        for norm in norms:
            norm.forward = _RobustForward(norm, mode, detach)
        yield
    finally:
        for norm, forward in zip(norms, before):
            vars(norm).pop('forward', None)
            if forward is not None:  # of an outer context
                norm.forward = forward


def _changed_norms(model, include_logit_bn):
    """Return the batch norms that robust inference changes."""
    spared = set() if include_logit_bn else {
        module.bn for module in model.modules()
        if isinstance(module, BNLogitsHead)}
    norms = [norm for norm in find_norms(model) if norm not in spared]
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not (
                module in norms or module in spared):
            raise InputError(
                f'a {type(module).__name__} of {type(model).__name__} tracks '
                'no statistics; robust inference needs the tracked variance')
    if not norms:
        raise InputError(
            f'{type(model).__name__} has no batch norm'
            + ('' if include_logit_bn else ' but that of the logits')
            + ': robust inference would change nothing')
    return norms


def warn_of_batch(labels: Tensor, num_classes: int | None = None) -> None:
    """Warn if a batch is no sample of all classes.

    Args:
        labels: (N,), of one batch.
        num_classes: default: the largest label, and one.
    """
    if len(labels) == 1:
        warnings.warn(SIZE_WARNING, RobustInferenceWarning, stacklevel=2)
    if len(labels) < MIN_LABELS:
        return
    classes = num_classes or int(labels.max()) + 1
    found = len(labels.unique())
    expected = classes * (1 - (1 - 1 / classes) ** len(labels))
    if found < 0.6 * expected:
        warnings.warn(SORTED_WARNING.format(found=found, classes=classes),
                      RobustInferenceWarning, stacklevel=2)


@HOOKS.register_module()
class RobustInferenceHook(Hook):
    """Validate and test with robust inference, as a setting of a config.

    ::

        custom_hooks = [dict(type='RobustInferenceHook', mode='R')]

    Args:
        mode, include_logit_bn: see :func:`robust_inference`.
    """

    # After PreciseBatchNormHook has measured what the norms track.
    priority = 'VERY_LOW'

    def __init__(self, mode: str = 'R', include_logit_bn: bool = True):
        self.arguments = dict(mode=mode, include_logit_bn=include_logit_bn)
        self._context = None

    def _enter(self, runner):
        self._leave(runner)  # where an error had cut a test short
        self._context = robust_inference(
            unwrap_model(runner.model), **self.arguments)
        self._context.__enter__()

    def _leave(self, runner):
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None

    before_val = before_test = _enter
    after_val = after_test = _leave


class _RobustForward:
    """Forward of one norm; the norm's own one is not called."""

    def __init__(self, norm, mode, detach):
        self.norm, self.mode, self.detach = norm, mode, detach

    def __call__(self, input):
        norm = self.norm
        norm._check_input_dim(input)
        if len(input) == 1:
            warnings.warn(SIZE_WARNING, RobustInferenceWarning, stacklevel=2)
        precise = input.to(torch.promote_types(input.dtype, torch.float32))
        apply = dict(R=self._batch_mean, r=self._whole_batch,
                     max=self._larger_variance)[self.mode]
        return apply(precise).to(input.dtype)

    def _batch_mean(self, input):
        """Mode R. The norm is given a constant mean, and the gradient through
        the mean goes by way of the bias, whose value stays: one pass over
        the features in place of four."""
        norm = self.norm
        mean = input.mean(_sample_axes(input))
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
        weight = torch.ones_like(mean) if norm.weight is None else norm.weight
        constant = mean.detach()
        if not self.detach:
            scale = weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = bias + scale.detach() * (constant - mean)
        return _batch_norm(
            input, norm, constant, norm.running_var, weight, bias)

    def _whole_batch(self, input):
        """Mode r: as in training, but without updates."""
        norm = self.norm
        mean = variance = None
        if self.detach:
            with torch.no_grad():
                variance, mean = torch.var_mean(
                    input, _sample_axes(input), correction=0)
        return _batch_norm(
            input, norm, mean, variance, norm.weight, norm.bias)

    def _larger_variance(self, input):
        norm, shape = self.norm, (-1, *[1] * (input.ndim - 2))
        variance, mean = torch.var_mean(
            input, _sample_axes(input), correction=0)
        if self.detach:
            variance, mean = variance.detach(), mean.detach()
        scale = torch.rsqrt(variance.maximum(norm.running_var) + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        output = (input - mean.view(shape)) * scale.view(shape)
        return output if norm.bias is None else output + norm.bias.view(shape)


def _sample_axes(input):
    return [0, *range(2, input.ndim)]


def _batch_norm(input, norm, mean, variance, weight, bias):
    """Without a mean, of the batch's statistics."""
    # The functional form refuses a batch of one value.
    return torch.batch_norm(
        input, weight, bias, mean, variance, mean is None, 0., norm.eps,
        torch.backends.cudnn.enabled)


def _check_batch(model, args, kwargs):
    """Warn of a batch whose data samples are labelled and sorted."""
    samples = kwargs.get('data_samples', args[1] if len(args) > 1 else None)
    if isinstance(samples, (list, tuple)) and samples and all(
            'gt_label' in sample for sample in samples):
        head = getattr(model, 'head', None)
        warn_of_batch(torch.cat([sample.gt_label for sample in samples]),
                      getattr(head, 'num_classes', None))
