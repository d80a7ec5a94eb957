"""What a file that leaves PyTorch says about its network."""
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmadder.checkpoints import variant_of
from mmadder.layers import find_adders
from mmadder.version import __version__

CLASSIFIER, DENSE, DETECTOR = 'classifier', 'dense', 'detector'


def describe(model: nn.Module, cfg: Config, kind: str,
             classes: tuple[str, ...], bits: int = 32) -> dict[str, Any]:
    """What goes into a file beside the network; JSON has a name for it all.

    Args:
        model: of PyTorch, with its data preprocessor.
        cfg: its config.
        kind: CLASSIFIER, DENSE or DETECTOR.
        classes: names in the order of the labels, () if they are not known.
        bits: of a number.
    """
    variants = {variant_of(layer) for layer in find_adders(model).values()}
    return dict(
        version=__version__, kind=kind,
        variant=', '.join(sorted(variants)) or 'cnn', bits=bits,
        classes=list(classes), normalization=normalization(model),
        config=cfg.pretty_text)


def configured_classes(cfg: Config) -> tuple[str, ...]:
    """Names that a config gives to the classes of its test set, or ()."""
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    return tuple((dataset.get('metainfo') or {}).get('classes') or ())


def innermost_dataset(dataset: ConfigDict) -> ConfigDict:
    """Return the config of the first data set inside of wrappers."""
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset.datasets[0]
    return dataset


def normalization(model: nn.Module) -> dict[str, Any]:
    """Pixels 0 to 255 as the pipeline loads them, to what the network takes.
    """
    preprocessor = model.data_preprocessor
    mean, std = (
        getattr(preprocessor, name, torch.full((3, ), value)).flatten(
            ).tolist() for name, value in (('mean', 0.), ('std', 1.)))
    swaps = getattr(preprocessor, '_channel_conversion', False) or \
        getattr(preprocessor, 'to_rgb', False)
    return dict(
        swap_channels=bool(swaps), mean=mean, std=std,
        pad_size_divisor=getattr(preprocessor, 'pad_size_divisor', 1),
        pad_value=float(getattr(preprocessor, 'pad_value', 0)))
