"""Images per second and memory of whole networks on a GPU.

The networks are those of our configs, with random weights and pictures, in
training (forward, backward, the config's optimizer) and in inference, one at a
time.
"""
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import nn

from mmadder import timing
from mmadder.files import shipped
from mmadder.layers import set_adder_fraction
from mmadder.models import build_model

VARIANTS = dict(CNN='cnn', ANN='ann', AWN='ann-awn',
                centered='ann-awn-centered')
# (name, autocast, TF32): TF32 is that of convolutions.
PRECISIONS = (('float32', None, False), ('TF32', None, True),
              ('bfloat16', torch.bfloat16, True))


class Network(NamedTuple):
    """A network of our configs, and what it is given."""
    title: str
    config: str  # from configs/, with {} for the variant
    batch: int
    size: tuple[int, int]  # of the pictures, (height, width)


NETWORKS = {
    'resnet18': Network(
        'ResNet-18', 'imagenet/{}-resnet18_8xb32_in1k.py', 128, (224, 224)),
    'resnet20': Network(
        'ResNet-20', 'cifar10/{}-resnet20_1xb256_cifar10.py', 256, (32, 32)),
    'faster-rcnn': Network(
        'Faster R-CNN R18-FPN',
        'voc/faster-rcnn_{0}-r18_{0}-fpn_4xb4-12e_voc0712.py', 4,
        (600, 992))}
# What a machine without a GPU can run in its place, in seconds.
REHEARSED = dict(
    resnet18=(2, (32, 32)), resnet20=(2, (32, 32)),
    **{'faster-rcnn': (1, (64, 96))})


def rehearsal(name: str) -> Network:
    """Return a network with tiny pictures."""
    batch, size = REHEARSED[name]
    return NETWORKS[name]._replace(batch=batch, size=size)


def build(network: Network, variant: str,
          device: str) -> tuple[nn.Module, OptimWrapper]:
    """Build a network, with random weights, and its config's optimizer.

    Args:
        network: its config is read.
        variant: key of VARIANTS; all its adders are adders (t = 1).
        device: where it is to run.
    """
    config = Config.fromfile(Path(shipped('configs'), network.config.format(
        VARIANTS[variant])))
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = build_model(config)
    if variant == 'centered':
        set_adder_fraction(model, 1.)
    model = model.to(device)
    return model, build_optim_wrapper(model, config.optim_wrapper)


def make_batch(network: Network, model: nn.Module,
               device: str) -> dict[str, Any]:
    """Return the arguments of a model, random, normalized pictures."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(
        network.batch, 3, *network.size, generator=generator).to(device)
    sample = (_detection if hasattr(model, 'roi_head') else
              _classification)
    return dict(inputs=pictures, data_samples=[
        sample(network, i).to(device) for i in range(network.batch)])


def _classification(network, i):
    return DataSample().set_gt_label(i % 10)


def _detection(network, i):
    height, width = network.size
    sample = DetDataSample(metainfo=dict(
        img_shape=network.size, ori_shape=network.size,
        pad_shape=network.size, batch_input_shape=network.size,
        scale_factor=(1., 1.)))
    whole = torch.tensor([width, height, width, height])
    boxes = whole * torch.tensor([[0.1, 0.1, 0.4, 0.6], [0.3, 0.4, 0.9, 0.9]])
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([i % 20, 19]))
    return sample


def make_calls(model: nn.Module, optimizer: OptimWrapper,
               batch: dict[str, Any], device: str,
               dtype: torch.dtype | None) -> dict[str, Callable]:
    """{'train', 'inference': callable}; both may run in any order.

    Args:
        model: is put in the mode of each.
        optimizer: takes the steps.
        batch: of :func:`make_batch`.
        device: of both.
        dtype: of autocast; None for none.
    """
    autocast = functools.partial(
        torch.autocast, device, dtype, enabled=dtype is not None)

    def train():
        model.train()
        with autocast():
            losses = model(**batch, mode='loss')
        loss, _ = model.parse_losses(losses)
        optimizer.update_params(loss)

    def inference():
        model.eval()
        with torch.no_grad(), autocast():
            model(**batch, mode='predict')
    return dict(train=train, inference=inference)


def measure(names: Sequence[str], rounds: int, device: str = 'cuda',
            rehearse: bool = False) -> list[dict[str, Any]]:
    """Time networks and print a line for each.

    Args:
        names: keys of NETWORKS.
        rounds: of :func:`mmadder.timing.median_times`.
        device: 'cuda', or 'cpu' to rehearse.
        rehearse: tiny pictures.
    Returns:
        A dict per line: ``network``, ``layers``, ``precision``, ``batch``,
        ``size``, ``train`` and ``inference`` in images per second, and
        ``memory``, the peak of a training step in bytes (None on the CPU).
    """
    rows = []
    print(f'{"network":22}{"layers":10}{"precision":10}{"train":>10}'
          f'{"inference":>11}{"GiB":>7}   images per second')
    for name in names:
        network = rehearsal(name) if rehearse else NETWORKS[name]
        for variant in VARIANTS:
            for precision in PRECISIONS:
                if precision[1] and device == 'cpu' and name == 'faster-rcnn':
                    continue  # mmcv's NMS of the CPU knows float32 only
                rows.append(_measure(
                    network, variant, precision, rounds, device))
                print(_line(rows[-1]), flush=True)
    return rows


def _measure(network, variant, precision, rounds, device):
    name, dtype, tf32 = precision
    on_gpu = device == 'cuda'
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = (
        tf32, True)
    try:
        model, optimizer = build(network, variant, device)
        calls = make_calls(
            model, optimizer, make_batch(network, model, device), device,
            dtype)
        memory = None
        if on_gpu:
            calls['train']()  # with what cuDNN tries
            torch.cuda.reset_peak_memory_stats()
            calls['train']()
            memory = torch.cuda.max_memory_allocated()
        times = timing.median_times(
            calls, rounds,
            synchronize=torch.cuda.synchronize if on_gpu else None)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = (
            before)
    return dict(
        network=network.title, layers=variant, precision=name,
        batch=network.batch, size=network.size, memory=memory,
        **{call: network.batch / seconds for call, seconds in times.items()})


def _line(row):
    memory = '-' if row['memory'] is None else f'{row["memory"] / 2**30:.2f}'
    return (f'{row["network"]:22}{row["layers"]:10}{row["precision"]:10}'
            f'{row["train"]:10.1f}{row["inference"]:11.1f}{memory:>7}')
