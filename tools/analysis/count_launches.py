"""Count operators in training ResNet-18: what a GPU has to launch.

The network of our configs runs on the meta device, where nothing is computed
and every operator is seen: all but views and empty tensors, each at least one
launch. An adder's forward and its input gradient are two, the packing of the
weight and the tiles, and a third where the depth is split or a centered group
has more than 128 filters; its weight gradient is cuDNN's and two more. Left
out is the optimizer, multi-tensor on a GPU.

    python tools/analysis/count_launches.py
    python tools/analysis/count_launches.py --names    # of one layer's scaling
"""
import argparse
import collections

import torch
from mmengine.logging import MMLogger
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmadder import cli
from mmadder.benchmark import throughput
from mmadder.layers import find_adders, local_gradient_scaling

EMPTY = ('empty', 'empty_like', 'new_empty', 'new_empty_strided',
         'empty_strided')


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--names', action='store_true',
                        help="of one layer's local gradient scaling")
    return parser.parse_args()


class Launches(TorchDispatchMode):
    """Counts operators on the meta device, by name."""

    def __init__(self):
        super().__init__()
        self.names = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        on_device = any(isinstance(leaf, torch.Tensor) and leaf.is_meta
                        for leaf in tree_leaves((args, kwargs, result)))
        view = any(value.alias_info and not value.alias_info.is_write
                   for value in func._schema.returns)
        name = func.overloadpacket.__name__
        if on_device and not view and name not in EMPTY:
            self.names[name] += 1
        return result


def count(function):
    """Return (what a function returns, launches)."""
    with Launches() as launches:
        result = function()
    return result, launches.names.total()


def count_step(variant):
    """(launches of forward and of backward, those of scaling, adders)."""
    network = throughput.rehearsal('resnet18')
    model, _ = throughput.build(network, variant, 'meta')
    model.train()
    batch = throughput.make_batch(network, model, 'meta')
    losses, forward = count(lambda: model(**batch, mode='loss'))
    loss, _ = model.parse_losses(losses)
    _, backward = count(loss.backward)
    adders = len(find_adders(model))
    return forward, backward, adders * scaling_names().total(), adders


def scaling_names():
    """Launches by name of one layer's local gradient scaling."""
    weight = torch.ones(64, 64, 3, 3, device='meta', requires_grad=True)
    scaled = local_gradient_scaling(weight)
    gradient = torch.ones_like(weight)
    with Launches() as launches:
        torch.autograd.grad(scaled, weight, gradient)
    return launches.names


def main():
    if parse_args().names:
        for name, number in scaling_names().most_common():
            print(f'{number:4} {name}')
        return
    MMLogger.get_current_instance().setLevel('WARNING')
    print(f'{"layers":10}{"forward":>9}{"backward":>10}{"of scaling":>12}'
          f'{"adders":>8}')
    for variant in throughput.VARIANTS:
        forward, backward, scaling, adders = count_step(variant)
        print(f'{variant:10}{forward:9}{backward:10}{scaling:12}{adders:8}')


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
