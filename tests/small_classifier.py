"""A small AdderResNet as classifier, with norms that have seen data."""
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn


def make_classifier():
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor', mean=[0.] * 3,
            std=[255.] * 3, num_classes=4),
        backbone=dict(type='AdderResNet', depth=18, base_channels=8,
                      stem_channels=8),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=4,
                  in_channels=64, topk=(1, ))))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the first batch
    model.train()
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32), mode='tensor')
    return model.eval()


def make_batches(count=3, size=4):
    generator = torch.Generator().manual_seed(1)
    return [dict(
        inputs=list(torch.randint(0, 256, (size, 3, 32, 32),
                                  generator=generator, dtype=torch.uint8)),
        data_samples=[DataSample().set_gt_label(0) for _ in range(size)])
        for _ in range(count)]
