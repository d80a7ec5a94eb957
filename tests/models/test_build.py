"""Models from configs are what a runner builds."""
import copy

import pytest
import torch
from mmdet.models import DetDataPreprocessor, RetinaNet
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier

from mmadder.models import AdderResNet, build_model

BACKBONE = dict(type='AdderResNet', depth=18, base_channels=8,
                stem_channels=8)
CLASSIFIER = dict(
    default_scope='mmpretrain',
    data_preprocessor=dict(mean=[1.] * 3, std=[2.] * 3, num_classes=3),
    model=dict(
        type='ImageClassifier', backbone=BACKBONE,
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=3, in_channels=64,
                  topk=(1, ))))
DETECTOR = dict(
    default_scope='mmdet',
    model=dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[3.] * 3,
                               std=[4.] * 3),
        backbone=dict(BACKBONE, out_indices=(2, 3)),
        neck=dict(type='AdderFPN', in_channels=[32, 64], out_channels=8,
                  num_outs=3),
        bbox_head=dict(
            type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', octave_base_scale=4,
                scales_per_octave=1, ratios=[1.], strides=[16, 32, 64]))))


@pytest.mark.parametrize('cfg, kind, preprocessor, mean', [
    (CLASSIFIER, ImageClassifier, ClsDataPreprocessor, 1),
    (DETECTOR, RetinaNet, DetDataPreprocessor, 3)])
def test_build_model(cfg, kind, preprocessor, mean):
    """In the config's scope, and with its top-level preprocessor."""
    cfg = Config(copy.deepcopy(cfg))
    before = cfg.to_dict()
    scope = DefaultScope.get_current_instance()
    model = build_model(cfg)
    assert type(model) is kind
    assert type(model.backbone) is AdderResNet
    assert type(model.data_preprocessor) is preprocessor
    assert model.data_preprocessor.mean.flatten().tolist() == [mean] * 3
    assert {p.device.type for p in model.parameters()} == {'cpu'}
    assert DefaultScope.get_current_instance() is scope
    assert cfg.to_dict() == before


def test_the_models_own_preprocessor_comes_first():
    """As in the runner."""
    cfg = Config(copy.deepcopy(DETECTOR))
    cfg.data_preprocessor = dict(
        type='DetDataPreprocessor', mean=[9.] * 3, std=[1.] * 3)
    model = build_model(cfg)
    assert model.data_preprocessor.mean.flatten().tolist() == [3.] * 3


def test_weights_are_random():
    torch.manual_seed(0)
    first, second = (build_model(Config(CLASSIFIER)) for _ in range(2))
    assert not torch.equal(first.backbone.layer1[0].conv1.weight,
                           second.backbone.layer1[0].conv1.weight)
