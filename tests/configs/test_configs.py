"""Every config builds, makes one training step and one prediction."""

import math
from pathlib import Path

import pytest
import torch
from mmdet.models import FPN
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmpretrain.models import LinearClsHead
from mmpretrain.structures import DataSample
from torch import nn

from mmadder import models
from mmadder.checkpoints import variant_of
from mmadder.cli.detector_classes import fit_detector_classes
from mmadder.engine.adder_check_hook import frozen_norms, without_norm
from mmadder.layers import AdderConv2d, find_adders, set_adder_fraction
from mmadder.models import AdderFPN, AdderResNet

CONFIGS = Path(__file__).parents[2] / 'configs'
TWINS = {
    'digits/ann-awn-resnet18_1xb32-5e_digits.py':
    'digits/cnn-resnet18_1xb32-5e_digits.py',
    'digits/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py':
    'digits/faster-rcnn_cnn-r18_cnn-fpn_1xb8-8e_digits.py',
    'bccd/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb4-24e_bccd.py':
    'bccd/faster-rcnn_cnn-r18_cnn-fpn_1xb4-24e_bccd.py'}
QUICKSTART = 'ann-awn-centered-resnet18_1xb32-5e_digits'  # it pretrains that
CENTERED = [path.relative_to(CONFIGS).as_posix()
            for path in CONFIGS.glob('[!_]*/**/*centered*.py')]
CIFAR10 = [f'cifar10/{variant}-resnet{depth}_1xb256_cifar10.py'
           for variant in ('cnn', 'ann', 'ann-ws', 'ann-awn')
           for depth in (20, 32)]
IMAGENET = [f'imagenet/{variant}_8xb32_in1k.py' for variant in (
    'cnn-resnet18', 'ann-resnet18', 'ann-ws-resnet18', 'ann-awn-resnet18',
    'ann-resnet50', 'ann-awn-resnet50')]
NAMES = sorted(path.relative_to(CONFIGS).as_posix()
               for path in CONFIGS.glob('[!_]*/**/*.py')
               if path.parent.name != 'coco')  # see test_coco.py
VOC = [name for name in NAMES if name.startswith('voc/')]
# The paper's and PyTorch's recipes leave norms their decay.
DECAYED_NORMS = ('cifar10/', 'imagenet/', 'voc/')
DETECTORS = 'faster-rcnn', 'retinanet'
DETECTION = [name for name in NAMES
             if any(kind in name for kind in DETECTORS)]
CLASSIFICATION = [name for name in NAMES if name not in DETECTION]
# A user's own config: an MMDetection model with two parts swapped.
PLAIN = '''
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py',
          'mmdet::_base_/schedules/schedule_1x.py',
          'mmdet::_base_/default_runtime.py']
model = dict(
    backbone=dict(type='AdderResNet', depth=18, frozen_stages=-1,
                  norm_eval=False, init_cfg=None),
    neck=dict(type='AdderFPN', in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(num_classes=20)))
optim_wrapper = dict(paramwise_cfg=dict(
    custom_keys={'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}))
'''


def load(name):
    cfg = Config.fromfile(CONFIGS / name)
    if 'own_data/' in str(name):
        fit_detector_classes(cfg, classes=('cat', 'dog'))
    return cfg


def build_model(cfg):
    torch.manual_seed(0)
    return models.build_model(cfg)


def build_optimizer(cfg, model):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return build_optim_wrapper(model, cfg.optim_wrapper)


def random_scenes(size=64):
    """Two pictures with one object each, as a MMDetection dataloader."""
    samples = []
    for label in (0, 1):
        boxes = HorizontalBoxes(
            torch.tensor([[8., 8., 40., 44.]]) * size / 64)
        samples.append(DetDataSample(
            metainfo=dict(img_id=label, img_shape=(size, size),
                          ori_shape=(size, size), scale_factor=(1., 1.)),
            gt_instances=InstanceData(
                bboxes=boxes, labels=torch.tensor([label])),
            ignored_instances=InstanceData(
                bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))))
    pictures = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    return dict(inputs=list(pictures), data_samples=samples)


def random_crops(count=4, size=32):
    """Some crops, as a MMPretrain dataloader gives them."""
    return dict(
        inputs=torch.randint(
            0, 256, (count, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(i) for i in range(count)])


def fit_frozen_norms(model, batch):
    """Give frozen norms the statistics of a batch, as if pretrained on it."""

    def fit(norm, inputs):
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), unbiased=False)
        norm.running_var.copy_(var)
        norm.running_mean.copy_(mean)

    frozen = [m for m in model.train().backbone.modules()
              if isinstance(m, nn.BatchNorm2d) and not m.training]
    hooks = [norm.register_forward_pre_hook(fit) for norm in frozen]
    with torch.no_grad():
        model.backbone(model.data_preprocessor(batch, True)['inputs'])
    for hook in hooks:
        hook.remove()


def take_step(model, optim_wrapper, batch):
    """Make one training step; every parameter moves and stays finite.

    A step may be too small to show in float32, but not zero.
    """
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    model.train()  # AdderCheckHook would have nothing to say
    assert not list(without_norm(model)) + list(frozen_norms(model))
    losses = model.train_step(batch, optim_wrapper)
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), key
        step = optim_wrapper.optimizer.state[parameter]['momentum_buffer']
        assert step.any() or not torch.equal(parameter, before[key]), key


def is_adder_or_conv(module):
    return isinstance(module, (AdderConv2d, nn.Conv2d))


@pytest.mark.parametrize('name', DETECTION)
def test_detector_steps_and_predicts(name):
    cfg = load(name)
    model = build_model(cfg)
    size = 32 if name in VOC else 64  # full width, up to 512 regions
    batch = random_scenes(size)
    head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
    if model.backbone.norm_eval:
        fit_frozen_norms(model, batch)
    take_step(model, build_optimizer(cfg, model), batch)
    for sample in model.eval().test_step(random_scenes(size)):
        assert sample.pred_instances.bboxes.shape[1:] == (4, )
        assert torch.isfinite(sample.pred_instances.scores).all()
        assert (sample.pred_instances.labels < head.num_classes).all()


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_classifier_steps_and_predicts(name):
    cfg = load(name)
    model = build_model(cfg)
    take_step(model, build_optimizer(cfg, model), random_crops())
    for sample in model.eval().test_step(random_crops()):
        assert sample.pred_score.shape == (cfg.model.head.num_classes, )
        assert sample.pred_score.sum().item() == pytest.approx(1)


@pytest.mark.parametrize('name', NAMES)
def test_awn_and_norms_in_the_optimizer(name):
    cfg = load(name)
    model = build_model(cfg)
    names = {id(p): key for key, p in model.named_parameters()}
    norms = {id(p) for m in model.modules()
             if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    lr = cfg.optim_wrapper.optimizer.lr
    decay = cfg.optim_wrapper.optimizer.weight_decay
    groups = build_optimizer(cfg, model).optimizer.param_groups
    seen = 0
    for group in groups:
        for parameter in group['params']:
            seen += 1
            awn = '.awn.' in names[id(parameter)]
            spared = awn or (id(parameter) in norms
                             and not name.startswith(DECAYED_NORMS))
            assert group['lr'] == pytest.approx(lr * (1e-5 if awn else 1))
            assert group['weight_decay'] == (0. if spared else decay)
    assert seen == len(names)


@pytest.mark.parametrize('name, twin', TWINS.items())
def test_twin_has_all_else_equal(name, twin):
    ours, other = load(name), load(twin)
    for part in ('backbone', 'neck'):
        if 'conv_cfg' in ours.model[part]:
            assert ours.model[part].conv_cfg == ours.adder_cfg
            assert other.model[part].conv_cfg is None
            other.model[part].conv_cfg = ours.adder_cfg
    if 'init_cfg' in ours.model.backbone:
        init_cfg = other.model.backbone.init_cfg
        assert 'work_dirs/cnn-' in init_cfg.checkpoint
        init_cfg.checkpoint = ours.model.backbone.init_cfg.checkpoint
    assert ours.to_dict() == other.to_dict()


@pytest.mark.parametrize('depth', [20, 32])
def test_cifar10_variants_differ_in_their_layers_only(depth):
    """And the recipe is the paper's, section 5.1."""
    configs = {}
    for variant in ('cnn', 'ann', 'ann-ws', 'ann-awn'):
        name = f'cifar10/{variant}-resnet{depth}_1xb256_cifar10.py'
        configs[variant] = cfg = load(name).to_dict()
        cfg['conv_cfg'] = cfg['model']['backbone'].pop('conv_cfg')
    layers = {key: cfg.pop('conv_cfg') for key, cfg in configs.items()}
    assert layers.pop('cnn') is None
    assert {key: cfg['weight_norm'] for key, cfg in layers.items()} == {
        'ann': None, 'ann-ws': 'WS', 'ann-awn': 'AWN'}
    cfg = configs.pop('ann-awn')
    assert all(other == cfg for other in configs.values())
    assert cfg['model']['backbone'] == dict(
        type='AdderResNetCIFAR', depth=depth)
    assert cfg['optim_wrapper']['optimizer'] == dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)
    assert cfg['train_dataloader']['batch_size'] == 256
    assert cfg['train_cfg']['max_epochs'] == 400
    assert cfg['param_scheduler'] == dict(
        type='CosineAnnealingLR', T_max=400)


@pytest.mark.parametrize('name', [
    name for name in NAMES if name.startswith('cifar10/')])
def test_cifar10_is_tested_by_the_test_tool_only(name):
    cfg = load(name)
    assert [cfg[f'{key}_dataloader'].dataset.split
            for key in ('train', 'val', 'test')] == ['train', 'val', 'test']
    assert 'images_per_class' not in cfg.test_dataloader.dataset
    assert cfg.default_hooks.checkpoint.save_best is None


@pytest.mark.parametrize('depth', [18, 50])
def test_imagenet_variants_differ_in_their_layers_only(depth):
    """And the recipe is that of PyTorch's example, with a cosine."""
    configs = {name: load(name) for name in IMAGENET if str(depth) in name}
    assert len(configs) == (4 if depth == 18 else 2)
    for name, cfg in configs.items():
        model = build_model(cfg)
        adders = [m for m in model.modules() if isinstance(m, AdderConv2d)]
        variants = {variant_of(layer) for layer in adders}
        variant = Path(name).name.split('-resnet')[0]
        assert variants == ({'cnn': set(), 'ann': {'ann'}, 'ann-ws': {'ws'},
                             'ann-awn': {'awn'}}[variant])
        assert all(layer.eta == 0.2 for layer in adders)
        assert all(not layer.awn.upsilon.any() for layer in adders
                   if layer.awn is not None)
        assert len(adders) in (0, 19 if depth == 18 else 52)
        assert type(model.head) is LinearClsHead
        cfg.model.backbone.pop('conv_cfg', None)
    first, *others = [cfg.to_dict() for cfg in configs.values()]
    assert all(other == first for other in others)
    assert first['optim_wrapper']['optimizer'] == dict(
        type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert first['train_dataloader']['batch_size'] == 32
    assert first['auto_scale_lr'] == dict(base_batch_size=256)
    assert first['train_cfg']['max_epochs'] == 150
    assert first['param_scheduler'] == dict(
        type='CosineAnnealingLR', T_max=150)


@pytest.mark.parametrize('name', sorted(set(DETECTION) - set(VOC)))
def test_detectors_have_27_adders_or_twins(name):
    model = build_model(load(name))
    assert type(model.backbone) is AdderResNet
    assert type(model.neck) is (FPN if 'mmdet-fpn' in name else AdderFPN)
    layers = [m for part in (model.backbone, model.neck)
              for m in part.modules() if is_adder_or_conv(m)]
    adders = [m for m in model.modules() if isinstance(m, AdderConv2d)]
    assert len(layers) == 28  # the stem is a convolution in both
    assert len(adders) == (0 if '_cnn-' in name else 27)


def test_digit_detector_loads_the_pretraining_config():
    """The configs name each other's files, and the backbones fit."""
    for name in sorted(set(DETECTION) - set(VOC)):
        init_cfg = load(name).model.backbone.get('init_cfg')
        if init_cfg is None:
            continue
        *folders, file = Path(init_cfg.checkpoint).parts[1:]
        folder = QUICKSTART if 'quickstart' in folders else folders[0]
        classifier = load(next(CONFIGS.glob(f'digits/**/{folder}.py')))
        converted = '_as_adder' * ('from-cnn' in name)
        assert file == (
            f'epoch_{classifier.train_cfg.max_epochs}{converted}.pth')
        if converted:  # by the config of the centered adders
            assert folder.startswith('cnn-')
            classifier = load(f'digits/{QUICKSTART}.py')
        pretrained = build_model(classifier).backbone.state_dict()
        own = build_model(load(name)).backbone.state_dict()
        assert {key: x.shape for key, x in pretrained.items()} == {
            key: x.shape for key, x in own.items()}


@pytest.mark.parametrize('name', CENTERED)
def test_centered_rows(name):
    """The paper's own settings otherwise; a start and an end as convolution
    where nothing was pretrained."""
    cfg = load(name)
    adders = find_adders(build_model(cfg)).values()
    assert {variant_of(layer) for layer in adders} == {'awn-centered'}
    assert all(layer.eta == 0.2 for layer in adders)
    assert not any(layer.awn.upsilon.any() for layer in adders)
    hooks = [hook for hook in cfg.custom_hooks
             if hook.type == 'AnnealingHook']
    pretrained = name in DETECTION or 'coco/' in name
    assert len(hooks) == ('from-cnn' in name or not pretrained)
    assert all(hook.start == 0 and hook.end < 0.7 for hook in hooks)


@pytest.mark.parametrize('name', [
    'cifar10/ann-awn-centered-resnet20_1xb256_cifar10.py',
    'bccd/faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_from-cnn_'
    '1xb4-24e_bccd.py'])
@pytest.mark.parametrize('fraction', [0, 0.5])
def test_centered_rows_step_on_their_way(name, fraction):
    cfg = load(name)
    model = build_model(cfg)
    set_adder_fraction(model, fraction)
    take_step(model, build_optimizer(cfg, model),
              random_scenes() if 'rcnn' in name else random_crops())


def test_plain_mmdetection_config_with_two_parts_swapped():
    cfg = Config.fromstring(PLAIN, '.py')
    model = build_model(cfg)
    model.init_weights()
    take_step(model, build_optimizer(cfg, model), random_scenes())
    adders = [m for m in model.modules() if isinstance(m, AdderConv2d)]
    assert len(adders) == 27
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training and m.running_mean.any() for m in norms)
