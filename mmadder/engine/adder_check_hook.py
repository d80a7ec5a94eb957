"""Warn where adders cannot learn, or see what is not in their picture."""
import logging
from collections.abc import Iterable, Iterator
from functools import reduce

from mmcv.cnn import ConvModule
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.layers import AdderConv2d
from mmadder.models import unwrap_model
from mmadder.text import shorten

MAX_NAMES = 4  # of layers in a warning

NO_NORM_WARNING = """\
Adders without a norm behind them: {names}. Their outputs lie hundreds below \
zero, and the loss will not come down. Add to the config:

{lines}"""

FROZEN_WARNING = """\
Batch norms behind adders keep mean 0 and variance 1 while the model trains: \
{names}. Outputs of adders lie hundreds below zero, so that the features \
behind are zero, and nothing is learnt. Load a trained backbone, or let the \
norms learn. Add to the config:

{lines}"""

BATCH_WARNING = """\
Pictures of several sizes in one batch: padding counts for adders, so that \
what is found in a picture depends on the others in its batch. Add to the \
config:

{loader} = dict(batch_size=1)"""


@HOOKS.register_module()
class AdderCheckHook(Hook):
    """Warn of settings with which adder networks fail in silence.

    Once, at the first step of a training: adders in a ConvModule without a
    norm, and norms behind adders that stay in evaluation mode with the
    statistics that they were made with. Once in validation and in test: a
    batch of pictures of several sizes. In a config::

        custom_hooks = [dict(type='AdderCheckHook')]
    """

    def __init__(self):
        self.trains, self.warned = False, set()

    def before_train(self, runner):
        self.trains = False

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.trains:
            return
        self.trains = True  # the model is in train mode from here on
        model = unwrap_model(runner.model)
        for text, names, settings in (
                (NO_NORM_WARNING, list(without_norm(model)), _norm_settings),
                (FROZEN_WARNING, list(frozen_norms(model)), _mode_settings)):
            if names:
                _warn(text.format(
                    names=shorten(names, MAX_NAMES), lines='\n'.join(
                        _lines(model, runner.cfg.get('model'), names,
                               settings))))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self._check_sizes(runner, 'val_dataloader', data_batch)

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        self._check_sizes(runner, 'test_dataloader', data_batch)

    def _check_sizes(self, runner, loader, batch):
        pictures = batch.get('inputs') if isinstance(batch, dict) else None
        if loader in self.warned or not isinstance(pictures, list) or len(
                {picture.shape[-2:] for picture in pictures
                 if isinstance(picture, Tensor)}) < 2:
            return
        self.warned.add(loader)
        if _has_adders(unwrap_model(runner.model)):
            _warn(BATCH_WARNING.format(loader=loader))


def without_norm(model: nn.Module) -> Iterator[str]:
    """Names of the ConvModules that are adders without a norm."""
    for name, module in model.named_modules():
        if (isinstance(module, ConvModule) and not module.with_norm
                and isinstance(module.conv, AdderConv2d)):
            yield name


def frozen_norms(model: nn.Module) -> Iterator[str]:
    """Names of untrained batch norms beside adders that will not learn.

    Args:
        model: in the mode that it trains in.
    """
    for name, parent in model.named_modules():
        children = dict(parent.named_children())
        if any(isinstance(child, AdderConv2d) for child in children.values()):
            for key, child in children.items():
                if isinstance(child, _BatchNorm) and _is_untrained(child):
                    yield f'{name}.{key}' if name else key


def _is_untrained(norm):
    return (not norm.training and norm.running_mean is not None
            and not norm.running_mean.any() and bool(
                (norm.running_var == 1).all()))


def _lines(model, cfg, names: Iterable[str], settings) -> Iterator[str]:
    """Lines of a config that change the parts which own some layers."""
    owners = dict(_owner(cfg, name) for name in names)
    for owner, node in owners.items():
        change = settings(model.get_submodule(owner), node)
        yield 'model = ' + reduce(
            lambda inner, key: f'dict({key}={inner})',
            reversed(owner.split('.')), change)


def _owner(cfg, name):
    """Name and config of the innermost part around a layer that has one."""
    owner, *parts = name.split('.')
    node = (cfg or {}).get(owner)
    for part in parts:
        inner = node.get(part) if isinstance(node, dict) else None
        if not isinstance(inner, dict):
            break
        owner, node = f'{owner}.{part}', inner
    return owner, node if isinstance(node, dict) else {}


def _norm_settings(part, node):
    lateral = ', no_norm_on_lateral=False' * bool(
        node.get('no_norm_on_lateral'))
    return f"dict(norm_cfg=dict(type='BN'){lateral})"


def _mode_settings(part, node):
    frozen = ', frozen_stages=-1' * (getattr(part, 'frozen_stages', -1) >= 0)
    return f'dict(norm_eval=False{frozen})'


def _has_adders(model):
    # Those of a fused or quantized model have names of their own.
    return any('AdderConv2d' in kind.__name__ for module in model.modules()
               for kind in type(module).__mro__)


def _warn(text):
    print_log(text, logger='current', level=logging.WARNING)
