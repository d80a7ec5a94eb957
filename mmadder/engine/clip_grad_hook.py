"""Gradient clipping that leaves adders out."""
from collections.abc import Iterable

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from torch import nn

from mmadder.layers import AdderConv2d


@HOOKS.register_module()
class AdderClipGradHook(Hook):
    """Let ``clip_grad`` of the optimizer wrapper spare the adder layers.

    ``custom_hooks = [dict(type='AdderClipGradHook')]`` belongs to every
    training of adder layers with ``clip_grad``, and does no harm to others:
    local gradient scaling gives adder weights gradients with norms of
    hundreds, whatever the loss. Among them, a usual bound of 35 would shrink
    the gradients of all parameters, and the adders' own learning rate would
    be lost. With the hook the bound, and the ``grad_norm`` in the log, is
    that of the other parameters.

    It works with OptimWrapper, AmpOptimWrapper and OptimWrapperDict, by norm
    and by value, and with any constructor. Without a runner, call
    :func:`spare_adders`.
    """

    def before_train(self, runner):
        spare_adders(runner.optim_wrapper)


def spare_adders(optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Take adder layers out of an optimizer wrapper's gradient clipping.

    Spared are the weights, and what trains in their weight norm, of layers
    with local gradient scaling (``eta``), also of those made later.

    Args:
        optim_wrapper: changed in place;
            one without ``clip_grad`` stays as it is.
    """
    if isinstance(optim_wrapper, OptimWrapperDict):
        for _, wrapper in optim_wrapper.items():
            spare_adders(wrapper)
    elif getattr(optim_wrapper, 'clip_grad_kwargs', None):
        if not isinstance(optim_wrapper.clip_func, _ClipOthers):
            optim_wrapper.clip_func = _ClipOthers(optim_wrapper.clip_func)


def scaled_parameters(layers: Iterable[AdderConv2d]) -> list[nn.Parameter]:
    """Return the parameters whose gradients do not depend on the loss' size.

    Returns:
        Weights and AWN parameters of layers with ``eta``;
        the gradient of a bias is an ordinary one.
    """
    return [parameter for layer in layers if layer.eta is not None
            for name, parameter in layer.named_parameters()
            if name != 'bias']


class _ClipOthers:
    """What an optimizer wrapper calls to clip, without scaled parameters."""

    def __init__(self, clip_func):
        self.clip_func = clip_func

    def __call__(self, parameters, **kwargs):
        spared = set(map(id, scaled_parameters(AdderConv2d.instances)))
        return self.clip_func(
            [p for p in parameters if id(p) not in spared], **kwargs)
