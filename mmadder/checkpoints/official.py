"""Checkpoints of AdderNet's published code (github.com/huawei-noah/AdderNet).

Its networks are ResNet-20 for CIFAR-10 and ResNet-50 for ImageNet: adders
without weight normalization, a 1x1 convolution as classifier, and a batch
norm on the logits. They become an ``ImageClassifier`` with AdderResNetCIFAR
or AdderResNet and BNLogitsHead.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmadder.errors import InputError

ADDER = '.adder'  # end of the keys of adder weights
EPS = 1e-5  # of its batch norms


def is_official(state_dict: dict[str, Tensor]) -> bool:
    """Tell whether the keys are those of AdderNet's code."""
    return any(key.endswith(ADDER) for key in state_dict)


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of AdderNet's code to those of an ImageClassifier.

    Args:
        state_dict: without a leading 'module.'.
    Returns:
        'backbone.*', 'head.fc.*' and 'head.bn.*'; the
        classifier's weight (num_classes, C, 1, 1) becomes (num_classes, C).
    """
    renamed = {}
    for key, value in state_dict.items():
        if key.startswith('fc.'):
            renamed[f'head.{key}'] = value.flatten(1) if value.ndim > 1 \
                else value
        elif key.startswith('bn2.'):
            renamed[f'head.bn.{key[len("bn2."):]}'] = value
        else:
            key = re.sub(rf'{re.escape(ADDER)}$', '.weight', key)
            renamed[f'backbone.{key}'] = value
    return renamed


def require_head(state_dict: dict[str, Tensor], model: nn.Module) -> None:
    """Raise InputError with the options that a classifier's head needs.

    Its norm on the logits is no part of most heads, and ResNet-50 has a bias
    before it, ResNet-20 none.

    Args:
        state_dict: of :func:`from_official`.
        model: the target.
    """
    head = getattr(model, 'head', None)
    fc = getattr(head, 'fc', None)
    if fc is None or 'head.bn.weight' not in state_dict:
        return
    options, biased = [], 'head.fc.bias' in state_dict
    if not hasattr(head, 'bn'):
        options = ['model.head.type=BNLogitsHead',
                   *['model.head.bias=True'] * biased]
    elif biased != (fc.bias is not None):
        options = [f'model.head.bias={biased}']
    if options:
        raise InputError(
            f'the checkpoint has a norm on its logits, and '
            f'{"a" if biased else "no"} bias before it, the config another '
            f'head: add --cfg-options {" ".join(options)}')


def official_logits(state_dict: dict[str, Tensor], images: Tensor) -> Tensor:
    """Compute what AdderNet's code computes, from its state dict alone.

    The network is read off the keys and evaluated with PyTorch's functions,
    without a layer or kernel of ours: the reference for an import.

    Args:
        state_dict: of :func:`from_official`'s input.
        images: (N, 3, H, W), normalized; its dtype is computed in.
    Returns:
        (N, num_classes), in evaluation mode.
    """
    net = _Network(state_dict, images.dtype)
    size = state_dict['conv1.weight'].shape[-1]
    small = size == 3  # for CIFAR: no stride and no pooling in the stem
    x = F.conv2d(images, net['conv1.weight'], padding=size // 2,
                 stride=1 if small else 2)
    x = net.norm('bn1', x).relu()
    if not small:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for name in net.blocks():
        first = name.endswith('.0') and not name.startswith('layer1')
        x = net.block(name, x, stride=2 if first else 1)
    x = x.mean((2, 3), keepdim=True)
    x = F.conv2d(x, net['fc.weight'], net.get('fc.bias'))
    return net.norm('bn2', x).flatten(1)


class _Network:
    """Functions of a state dict's layers, by their names."""

    def __init__(self, state_dict, dtype):
        self.tensors = {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in state_dict.items()}

    def __getitem__(self, key):
        return self.tensors[key]

    def get(self, key):
        return self.tensors.get(key)

    def blocks(self):
        """Names such as 'layer2.0', in order."""
        found = {re.match(r'layer(\d+)\.(\d+)\.', key)
                 for key in self.tensors} - {None}
        numbers = sorted({(int(m[1]), int(m[2])) for m in found})
        return [f'layer{stage}.{block}' for stage, block in numbers]

    def norm(self, name, x):
        return F.batch_norm(
            x, self[f'{name}.running_mean'], self[f'{name}.running_var'],
            self[f'{name}.weight'], self[f'{name}.bias'], eps=EPS)

    def adder(self, name, x, stride):
        weight = self[f'{name}{ADDER}']
        size = weight.shape[-1]
        columns = F.unfold(x, size, padding=size // 2, stride=stride)
        distances = torch.cdist(columns.mT, weight.flatten(1), p=1)
        height = (x.shape[2] - 1) // stride + 1
        return -distances.mT.unflatten(2, (height, -1))

    def block(self, name, x, stride):
        """Basic block, or a bottleneck with the stride in the middle."""
        bottleneck = f'{name}.conv3{ADDER}' in self.tensors
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        out = x
        for i, step in enumerate(strides, 1):
            out = self.adder(f'{name}.conv{i}', out, step)
            out = self.norm(f'{name}.bn{i}', out)
            if i < len(strides):
                out = out.relu()
        if f'{name}.downsample.0{ADDER}' in self.tensors:
            x = self.adder(f'{name}.downsample.0', x, stride)
            x = self.norm(f'{name}.downsample.1', x)
        return (out + x).relu()
