"""train() and eval() return the module, as PyTorch's do."""
import importlib
import inspect
import pkgutil

import pytest
from torch import nn

import mmadder
from mmadder.inference import (
    FusedAdderConv2d,
    QuantizedAdderConv2d,
    fuse_adder_bn,
)
from mmadder.inference.fusion import FusedShortcutConv2d
from mmadder.inference.post_training import QuantizedShortcutConv2d
from mmadder.layers import AdderConv2d
from mmadder.models import AdderCSPDarknet, AdderResNet, AdderResNetCIFAR


def quantized(kind):
    return kind(FusedAdderConv2d(AdderConv2d(2, 2, 1)), -1., 1.)


# Those whose base class is not PyTorch's here, or that refuse to train.
BUILDERS = {
    AdderCSPDarknet: lambda: AdderCSPDarknet(
        deepen_factor=.33, widen_factor=.125),
    AdderResNet: lambda: AdderResNet(18, base_channels=8, stem_channels=8),
    AdderResNetCIFAR: lambda: AdderResNetCIFAR(20),
    FusedAdderConv2d: lambda: FusedAdderConv2d(AdderConv2d(2, 2, 1)),
    FusedShortcutConv2d: lambda: FusedShortcutConv2d(AdderConv2d(2, 2, 1)),
    QuantizedAdderConv2d: lambda: quantized(QuantizedAdderConv2d),
    QuantizedShortcutConv2d: lambda: quantized(QuantizedShortcutConv2d),
}


def our_modules():
    for info in pkgutil.walk_packages(mmadder.__path__, 'mmadder.'):
        if info.name.rpartition('.')[2] in ('_C', '__main__'):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if (inspect.isclass(value) and issubclass(value, nn.Module)
                    and value.__module__ == info.name):
                yield value


@pytest.mark.parametrize(
    'kind', list(our_modules()), ids=lambda kind: kind.__name__)
def test_modes_return_the_module(kind):
    assert kind.eval is nn.Module.eval
    if kind.train is nn.Module.train:
        return
    module = BUILDERS[kind]()
    if not isinstance(module, FusedAdderConv2d):
        assert module.train() is module
        assert all(m.training for m in module.modules())
    assert module.train(False) is module
    assert module.eval() is module
    assert not any(m.training for m in module.modules())


@pytest.mark.parametrize('kind', [AdderCSPDarknet, AdderResNet])
def test_a_fused_backbone_too(kind):
    fused = fuse_adder_bn(BUILDERS[kind]().eval())
    assert fused.eval() is fused
