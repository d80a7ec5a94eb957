"""Whole models as timed calls: adders beside their convolutional twins.

Weights are random; batch norms are fitted to the input first, so that
features have the spread that they have in a trained network.
"""
import abc
import copy
import functools
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from mmcv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmadder.engine import StatisticsHook
from mmadder.export import IntegerPredictor, to_integers
from mmadder.export.description import (
    CLASSIFIER,
    DETECTOR,
    normalization,
)
from mmadder.export.integer_file import picture_codes
from mmadder.files import shipped
from mmadder.inference import fuse_adder_bn, make_plan, quantize
from mmadder.models.build import build_model
from mmadder.statistics import reestimate_statistics

from .peers import peers

ANN = dict(type='AdderConv2d')
ANN_AWN = dict(type='AdderConv2d', weight_norm='AWN')


def fit_batch_norms(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """Put a model in eval mode with the inputs' statistics as tracked ones."""
    reestimate_statistics(model, [inputs], model.extract_feat)
    return model.eval()


# -------------------------------------------------------------- inference --


class Inference(abc.ABC):
    """A model in eval mode on one batch, as CNN and as ANN-AWN."""
    baseline = 'CNN'

    def __init__(self, title: str, **more_of_cnn: Callable):
        self.title = title
        self.variants = {
            'CNN': lambda: self.call(self.model(None)),
            'CNN, BN folded': lambda: self.call(
                fuse_conv_bn(self.model(None))),
            **{f'CNN, {name}': make for name, make in more_of_cnn.items()},
            'ANN-AWN': lambda: self.call(self.model(ANN_AWN)),
            'ANN-AWN, fused': lambda: self.call(
                fuse_adder_bn(self.model(ANN_AWN))),
            'ANN-AWN, planned': lambda: self.call(
                make_plan(self.model(ANN_AWN))),
            'ANN-AWN, int8': lambda: self.call(
                quantize(self.model(ANN_AWN), [self.data()])),
            'ANN-AWN, integers': lambda: self.call(self.integers())}

    @abc.abstractmethod
    def data(self) -> dict:
        """Return the batch as a data loader makes it."""

    @abc.abstractmethod
    def model(self, conv_cfg: dict | None) -> nn.Module:
        """Return the model with fitted batch norms."""

    def integers(self) -> nn.Module:
        """The integer network behind the model's own interface."""
        model = self.model(ANN_AWN)
        inputs = model.data_preprocessor(self.data(), False)['inputs']
        kind = DETECTOR if hasattr(model, 'roi_head') else CLASSIFIER
        network = to_integers(
            fuse_adder_bn(model), [inputs], progress=False, description=dict(
                kind=kind, normalization=self.normalization(model)))
        return IntegerPredictor(model, network)

    def normalization(self, model: nn.Module) -> dict:
        """Of the bytes that the network of integers takes."""
        return normalization(model)

    @abc.abstractmethod
    def call(self, model: nn.Module) -> Callable:
        """Return what is timed."""


def _logits(predictor, codes):
    logits = predictor.run(codes)['logits']
    return torch.from_numpy(predictor.network.values(
        'logits', logits.numpy())).flatten(1)


class Logits(nn.Module):
    """A classifier as a function of one tensor, for other runtimes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.neck = model.backbone, model.neck
        self.fc = model.head.fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.neck(self.backbone(x))[-1])


class ResNet18(Inference):
    """ResNet-18 on `batch` 224x224 images."""

    def __init__(self, batch: int):
        self.batch = batch
        super().__init__(
            f'ResNet-18 inference, batch {batch}, 224x224', **{
                'channels_last': lambda: self.call(
                    self.model(None), torch.channels_last),
                'channels_last, BN folded': lambda: self.call(
                    fuse_conv_bn(self.model(None)), torch.channels_last),
                'torch.compile': lambda: self.call(
                    torch.compile(self.model(None))),
                **{name: lambda make=make: make(
                    Logits(self.model(None)), self.images())
                   for name, make in peers().items()}})

    def images(self) -> torch.Tensor:
        """Return the batch as the model takes it."""
        return torch.randn(self.batch, 3, 224, 224,
                           generator=torch.Generator().manual_seed(0))

    def data(self) -> dict:
        return dict(inputs=list(self.images()),
                    data_samples=[DataSample()] * self.batch)

    def model(self, conv_cfg: dict | None) -> nn.Module:
        torch.manual_seed(0)
        model = build_model(Config(dict(
            default_scope='mmpretrain', model=dict(
                type='ImageClassifier',
                backbone=dict(type='AdderResNet', depth=18,
                              conv_cfg=conv_cfg),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=1000,
                          in_channels=512)))))
        return fit_batch_norms(model, self.images())

    def call(self, model: nn.Module,
             layout: torch.memory_format = torch.contiguous_format,
             ) -> Callable:
        model = model.to(memory_format=layout)
        images = self.images().contiguous(memory_format=layout)

        if isinstance(model, IntegerPredictor):
            return functools.partial(_logits, model, picture_codes(
                images, **self.normalization(model)))

        def run():
            with torch.no_grad():
                return model(images, mode='tensor')
        return run

    def normalization(self, model: nn.Module) -> dict:
        """Such that the random images become bytes."""
        return dict(mean=[128.] * 3, std=[32.] * 3)

    def errors(self, calls: dict[str, Callable]) -> dict[str, float]:
        """Largest error of each variant, relative to the largest logit.

        Of convolutions against the first variant, of adders against the
        first one of theirs.
        """
        logits = {name: call() for name, call in calls.items()}
        found = {}
        for name, actual in logits.items():
            expected = logits[name.partition(',')[0]]
            found[name] = ((actual - expected).abs().max()
                           / expected.abs().max()).item()
        return found


class FasterRCNN(Inference):
    """Faster R-CNN, ResNet-18 and FPN, on one 600x1000 image."""
    config = 'faster-rcnn_ann-awn-r18_ann-awn-fpn.py'

    def __init__(self):
        super().__init__(
            'Faster R-CNN R18-FPN inference, one image, 600x1000')

    def data(self) -> dict:
        image = torch.randint(
            256, (3, 600, 1000), dtype=torch.uint8,
            generator=torch.Generator().manual_seed(0))
        sample = DetDataSample(metainfo=dict(
            img_shape=(600, 1000), ori_shape=(600, 1000),
            scale_factor=(1., 1.)))
        return dict(inputs=[image], data_samples=[sample])

    def model(self, conv_cfg: dict | None) -> nn.Module:
        torch.manual_seed(0)
        config = Config.fromfile(
            Path(shipped('configs'), '_base_', 'models', self.config))
        config.default_scope = 'mmdet'
        backbone, neck = config.model.backbone, config.model.neck
        backbone.conv_cfg = neck.conv_cfg = conv_cfg
        model = build_model(config)
        inputs = model.data_preprocessor(self.data())['inputs']
        return fit_batch_norms(model, inputs)

    def call(self, model: nn.Module) -> Callable:
        data = self.data()

        def run():
            with torch.no_grad():
                return model.test_step(copy.deepcopy(data))
        return run


# --------------------------------------------------------------- training --


class ResNet20Training:
    """A step of SGD on CIFAR-sized images."""
    baseline = 'CNN'

    def __init__(self, batch: int):
        self.batch = batch
        self.title = f'ResNet-20 training step, batch {batch}, 32x32'
        self.variants = {
            'CNN': lambda: self.step(None),
            'ANN': lambda: self.step(ANN),
            'ANN-AWN': lambda: self.step(ANN_AWN)}

    def step(self, conv_cfg: dict | None, before: Callable | None = None,
             after: Callable | None = None) -> Callable:
        """Return a training step; ``before`` gets the model."""
        torch.manual_seed(0)
        backbone = MODELS.build(dict(
            type='AdderResNetCIFAR', depth=20, conv_cfg=conv_cfg))
        head = nn.Linear(64, 10)
        optimizer = torch.optim.SGD(
            [*backbone.parameters(), *head.parameters()], lr=0.1,
            momentum=0.9, weight_decay=5e-4)
        images = torch.randn(self.batch, 3, 32, 32)
        labels = torch.randint(10, (self.batch, ))
        backbone.train()

        def run():
            if before:
                before(backbone)
            optimizer.zero_grad()
            features = backbone(images)[-1].mean((2, 3))
            loss = nn.functional.cross_entropy(head(features), labels)
            loss.backward()
            optimizer.step()
            if after:
                after()
        return run


class Recording(ResNet20Training):
    """What StatisticsHook costs in the short trainings of CIFAR-10."""
    baseline = 'ANN-AWN'
    epoch = 10_000  # images; the last step is recorded

    def __init__(self, batch: int):
        self.batch = batch
        self.title = f'ResNet-20 training step, batch {batch}, recorded'
        self.variants = {
            'ANN-AWN': lambda: self.step(ANN_AWN),
            'ANN-AWN, hook, not due': lambda: self.hooked(due=False),
            'ANN-AWN, hook, recording': lambda: self.hooked(due=True)}

    def hooked(self, due: bool) -> Callable:
        """Return a training step with the hook, which records if ``due``."""
        folder = tempfile.mkdtemp()
        runner = SimpleNamespace(
            epoch=0, iter=0, log_dir=folder,
            train_dataloader=range(1 if due else 2))
        hook = StatisticsHook()
        weakref.finalize(hook, shutil.rmtree, folder, ignore_errors=True)

        def before(model):
            runner.model = model
            hook.before_train_iter(runner, 0)
        return self.step(
            ANN_AWN, before, lambda: hook.after_train_iter(runner, 0))

    def summary(self, times: dict[str, float]) -> str:
        """Line: the share of an epoch, at the hook's default interval."""
        steps = -(-self.epoch // self.batch)
        plain, _, recorded = (times[name] for name in self.variants)
        share = (recorded - plain) / (steps * plain)
        return (f'one recorded step in {steps}, an epoch of {self.epoch:,} '
                f'images: {100 * share:+.1f} %')


# ------------------------------------------------------------------- all --

BENCHMARKS = {
    'resnet18': lambda: [ResNet18(1), ResNet18(16)],
    'resnet20': lambda: [ResNet20Training(256)],
    'recording': lambda: [Recording(128)],
    'faster-rcnn': lambda: [FasterRCNN()]}


def calls(benchmark: Inference | ResNet20Training,
          compiled: bool = True) -> dict[str, Callable]:
    """{variant: callable}, with or without those of torch.compile."""
    return {name: make() for name, make in benchmark.variants.items()
            if compiled or not name.endswith('torch.compile')}
