"""Whole models as timed calls: adders beside their convolutional twins.

Weights are random; batch norms are fitted to the input first, so that
features have the spread that they have in a trained network.
"""
import copy
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from mmcv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmadder.__main__ import config_folder
from mmadder.engine import StatisticsHook
from mmadder.inference import quantize
from mmadder.inference.fusion import fuse_adder_bn
from mmadder.statistics import reestimate_statistics

ANN = dict(type='AdderConv2d')
ANN_AWN = dict(type='AdderConv2d', weight_norm='AWN')


def fit_batch_norms(model, batch):
    """Put a model in eval mode with the batch's statistics as tracked ones."""
    reestimate_statistics(model, [batch], model.extract_feat)
    return model.eval()


# --------------------------------------------------------- classification --


class ResNet18:
    """ResNet-18 on `batch` 224x224 images, in eval mode."""
    baseline = 'CNN'

    def __init__(self, batch):
        self.batch = batch
        self.title = f'ResNet-18 inference, batch {batch}, 224x224'
        self.variants = {
            'CNN': self.cnn,
            'CNN, BN folded': self.folded,
            'CNN, channels_last': self.channels_last,
            'CNN, torch.compile': self.compiled,
            'ANN-AWN': self.adder,
            'ANN-AWN, fused': self.fused,
            'ANN-AWN, int8': self.int8}

    def images(self):
        return torch.randn(self.batch, 3, 224, 224,
                           generator=torch.Generator().manual_seed(0))

    def model(self, conv_cfg):
        torch.manual_seed(0)
        model = MMPRETRAIN_MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='AdderResNet', depth=18, conv_cfg=conv_cfg),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=1000,
                      in_channels=512)))
        return fit_batch_norms(model, self.images())

    def cnn(self):
        return self._call(self.model(None))

    def folded(self):
        return self._call(fuse_conv_bn(self.model(None)))

    def channels_last(self):
        return self._call(self.model(None), torch.channels_last)

    def compiled(self):
        return self._call(torch.compile(self.model(None)))

    def adder(self):
        return self._call(self.model(ANN_AWN))

    def fused(self):
        return self._call(fuse_adder_bn(self.model(ANN_AWN)))

    def int8(self):
        loader = [dict(inputs=list(self.images()),
                       data_samples=[DataSample()] * self.batch)]
        return self._call(quantize(self.model(ANN_AWN), loader))

    def _call(self, model, layout=torch.contiguous_format):
        model = model.to(memory_format=layout)
        images = self.images().contiguous(memory_format=layout)

        def run():
            with torch.no_grad():
                return model(images, mode='tensor')
        return run


class ResNet20Training:
    """A step of SGD on CIFAR-sized images."""
    baseline = 'CNN'

    def __init__(self, batch):
        self.batch = batch
        self.title = f'ResNet-20 training step, batch {batch}, 32x32'
        self.variants = {
            'CNN': lambda: self.step(None),
            'ANN': lambda: self.step(ANN),
            'ANN-AWN': lambda: self.step(ANN_AWN)}

    def step(self, conv_cfg, before=None, after=None):
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

    def __init__(self, batch):
        self.batch = batch
        self.title = f'ResNet-20 training step, batch {batch}, recorded'
        self.variants = {
            'ANN-AWN': lambda: self.step(ANN_AWN),
            'ANN-AWN, hook, not due': lambda: self.hooked(due=False),
            'ANN-AWN, hook, recording': lambda: self.hooked(due=True)}

    def hooked(self, due):
        folder = tempfile.TemporaryDirectory()
        runner = SimpleNamespace(
            epoch=0, iter=0, log_dir=folder.name, folder=folder,
            train_dataloader=range(1 if due else 2))
        hook = StatisticsHook()

        def before(model):
            runner.model = model
            hook.before_train_iter(runner, 0)
        return self.step(
            ANN_AWN, before, lambda: hook.after_train_iter(runner, 0))

    def summary(self, times):
        """Line: the share of an epoch, at the hook's default interval."""
        steps = -(-self.epoch // self.batch)
        plain, _, recorded = (times[name] for name in self.variants)
        share = (recorded - plain) / (steps * plain)
        return (f'one recorded step in {steps}, an epoch of {self.epoch:,} '
                f'images: {100 * share:+.1f} %')


# -------------------------------------------------------------- detection --


class FasterRCNN:
    """Faster R-CNN, ResNet-18 and FPN, on one 600x1000 image."""
    baseline = 'CNN'
    config = 'faster-rcnn_ann-awn-r18_ann-awn-fpn.py'

    def __init__(self):
        self.title = 'Faster R-CNN R18-FPN inference, one image, 600x1000'
        self.variants = {
            'CNN': self.cnn,
            'CNN, BN folded': self.folded,
            'ANN-AWN': self.adder,
            'ANN-AWN, fused': self.fused,
            'ANN-AWN, int8': self.int8}

    def data(self):
        """A batch as MMDetection's data loaders make it."""
        image = torch.randint(
            256, (3, 600, 1000), dtype=torch.uint8,
            generator=torch.Generator().manual_seed(0))
        sample = DetDataSample(metainfo=dict(
            img_shape=(600, 1000), ori_shape=(600, 1000),
            scale_factor=(1., 1.)))
        return dict(inputs=[image], data_samples=[sample])

    def model(self, conv_cfg):
        torch.manual_seed(0)
        config = Config.fromfile(
            Path(config_folder(), '_base_', 'models', self.config)).model
        config.backbone.conv_cfg = config.neck.conv_cfg = conv_cfg
        model = MMDET_MODELS.build(config)
        inputs = model.data_preprocessor(self.data())['inputs']
        return fit_batch_norms(model, inputs)

    def cnn(self):
        return self._call(self.model(None))

    def folded(self):
        return self._call(fuse_conv_bn(self.model(None)))

    def adder(self):
        return self._call(self.model(ANN_AWN))

    def fused(self):
        return self._call(fuse_adder_bn(self.model(ANN_AWN)))

    def int8(self):
        return self._call(quantize(self.model(ANN_AWN), [self.data()]))

    def _call(self, model):
        data = self.data()

        def run():
            with torch.no_grad():
                return model.test_step(copy.deepcopy(data))
        return run


BENCHMARKS = {
    'resnet18': lambda: [ResNet18(1), ResNet18(16)],
    'resnet20': lambda: [ResNet20Training(256)],
    'recording': lambda: [Recording(128)],
    'faster-rcnn': lambda: [FasterRCNN()]}


def calls(benchmark, compiled=True):
    """{variant: callable}, with or without those of torch.compile."""
    return {name: make() for name, make in benchmark.variants.items()
            if compiled or not name.endswith('torch.compile')}
