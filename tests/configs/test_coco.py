"""MMDetection's detectors become adder detectors by config alone."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import nn

from mmadder.engine import spare_adders
from mmadder.engine.adder_check_hook import frozen_norms, without_norm
from mmadder.layers import AdderConv2d

CONFIGS = Path(__file__).parents[2] / 'configs'
# Several pixels in each level: a batch norm of two values has no gradient.
SIZE = 64, 256
# ResNet-18 has 19 adders. The FPN has 8: four laterals and outputs each, or
# three, and two extra levels.
ADDERS = {
    'atss_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco': 27,
    'cascade-rcnn_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco': 27,
    'fcos_ann-awn-r18_ann-awn-fpn_gn-head_8xb2-1x_coco': 27,
    'mask-rcnn_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco': 27,
    'retinanet_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco': 27,
    'retinanet_ann-awn-centered-r18_ann-awn-centered-fpn_8xb2-1x_coco': 27,
    'yolox_ann-awn-s_ann-awn-pafpn_8xb8-300e_coco': 61}
BASES = dict(zip(ADDERS, (
    'atss/atss_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'yolox/yolox_s_8xb8-300e_coco.py')))


def load(name):
    cfg = Config.fromfile(CONFIGS / 'coco' / f'{name}.py')
    cfg.model.backbone.pop('init_cfg', None)  # a checkpoint
    if 'roi_head' in cfg.model:
        shrink_heads(cfg.model)
    return cfg


def shrink_heads(model):
    """To be fast, and to have anchors of all levels in small pictures."""
    model.train_cfg.rpn.allowed_border = -1
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=50)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=50)
    for stage in each(model.train_cfg.rcnn):
        stage.sampler.num = 32
    for head in each(model.roi_head.bbox_head):
        head.fc_out_channels = 16


def each(cfg):
    return cfg if isinstance(cfg, list) else [cfg]


def build(cfg):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()
        return model, build_optim_wrapper(model, cfg.optim_wrapper)


def adders(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, AdderConv2d)}


def random_scenes():
    """Two pictures with one object each, with masks."""
    samples = []
    for label in (0, 1):
        boxes = HorizontalBoxes(torch.tensor([[8., 8., 40., 44.]]))
        mask = np.zeros((1, *SIZE), dtype=np.uint8)
        mask[:, 8:44, 8:40] = 1
        samples.append(DetDataSample(
            metainfo=dict(img_id=label, img_shape=SIZE, ori_shape=SIZE,
                          scale_factor=(1., 1.)),
            gt_instances=InstanceData(
                bboxes=boxes, labels=torch.tensor([label]),
                masks=BitmapMasks(mask, *SIZE)),
            ignored_instances=InstanceData(
                bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))))
    pictures = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    return dict(inputs=list(pictures), data_samples=samples)


def test_all_configs_are_tested():
    found = [path.stem for path in (CONFIGS / 'coco').glob('*.py')]
    assert sorted(found) == sorted(ADDERS)


@pytest.mark.parametrize('name', ADDERS)
def test_detector_steps_and_predicts(name):
    model, optim_wrapper = build(load(name))
    layers = adders(model)
    for layer in layers.values():  # no other initialization came after
        assert layer.weight.std().item() == pytest.approx(1, abs=.05)
        assert (layer.awn.nu == 1).all() and (layer.awn.upsilon == 0).all()

    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    norms = {}
    for key, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, key=key: norms.update({key: p.grad.norm().item()}))
    MessageHub.get_current_instance().update_info('iter', 0)  # YOLOX's resize
    model.train()  # AdderCheckHook would have nothing to say
    assert not list(without_norm(model)) + list(frozen_norms(model))
    losses = model.train_step(random_scenes(), optim_wrapper)
    assert all(torch.as_tensor(loss).isfinite().all()
               for loss in losses.values())
    assert all(p.isfinite().all() for p in model.parameters())
    for key, layer in layers.items():
        assert norms[f'{key}.weight'] > 1, key
        assert norms[f'{key}.awn.upsilon'] > 0, key
        assert not torch.equal(layer.weight, before[f'{key}.weight']), key

    for sample in model.eval().test_step(random_scenes()):
        assert sample.pred_instances.bboxes.shape[1:] == (4, )
        assert sample.pred_instances.scores.isfinite().all()
        assert (sample.pred_instances.labels < 80).all()
        if 'mask' in name:
            assert sample.pred_instances.masks.shape[1:] == SIZE


def test_fcos_clips_the_gradients_of_others_only():
    """A bound of 35 in MMDetection's config; the adders' norm is hundreds."""
    model, optim_wrapper = build(load(next(n for n in ADDERS if 'fcos' in n)))
    assert optim_wrapper.clip_grad_kwargs['max_norm'] == 35
    spare_adders(optim_wrapper)
    raw, norms = {}, {}
    for key, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda p, key=key: raw.update({key: p.grad.norm().item()}))
    optim_wrapper.optimizer.register_step_pre_hook(lambda *args: norms.update({
        key: p.grad.norm().item() for key, p in model.named_parameters()}))
    data = model.data_preprocessor(random_scenes(), training=True)
    loss, _ = model.parse_losses(model.train()(**data, mode='loss'))
    optim_wrapper.update_params(100 * loss)  # a bad batch
    spared = {f'{key}.{part}' for key in adders(model)
              for part in ('weight', 'awn.nu', 'awn.upsilon')}
    others = set(norms) - spared
    assert math.hypot(*(raw[key] for key in others)) > 35
    assert math.hypot(*(norms[key] for key in others)) == pytest.approx(
        35, rel=1e-4)
    assert all(norms[key] == raw[key] for key in spared)
    assert math.hypot(*(norms[key] for key in spared)) > 500


@pytest.mark.parametrize('name', ADDERS)
def test_all_but_the_stem_are_adders_behind_a_trained_norm(name):
    model, _ = build(load(name))
    assert len(adders(model)) == ADDERS[name]
    layers = [(key, m) for part in ('backbone', 'neck')
              for key, m in getattr(model, part).named_modules(prefix=part)
              if isinstance(m, (AdderConv2d, nn.Conv2d))]
    stem, = [key for key, m in layers if isinstance(m, nn.Conv2d)]
    assert stem in ('backbone.conv1', 'backbone.stem.conv.conv')
    assert len(layers) == ADDERS[name] + 1
    norms = [m for part in (model.backbone, model.neck)
             for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == len(layers)
    assert all(m.training and p.requires_grad
               for m in norms for p in m.train().parameters())


@pytest.mark.parametrize('name, base', BASES.items())
def test_a_config_differs_in_backbone_neck_and_awn_only(name, base):
    ours = Config.fromfile(CONFIGS / 'coco' / f'{name}.py').to_dict()
    theirs = Config.fromstring(f"_base_ = 'mmdet::{base}'", '.py').to_dict()
    custom_keys = ours['optim_wrapper']['paramwise_cfg'].pop('custom_keys')
    assert custom_keys == {'.awn.': dict(lr_mult=1e-5, decay_mult=0.)}
    theirs['optim_wrapper'].setdefault('paramwise_cfg', {})
    hooks = ours.pop('custom_hooks')
    others = theirs.pop('custom_hooks', [])
    assert hooks[:len(others)] == others
    assert {hook['type'] for hook in hooks[len(others):]} == {
        'LossScaleHook', 'AdderClipGradHook', 'AdderCheckHook',
        'CheckpointCheckHook'}
    assert ours.pop('custom_imports')['imports'] == ['mmadder']
    for variable in ('adder_backbone', 'adder_neck', 'awn_paramwise',
                     'conv_cfg'):
        ours.pop(variable, None)
    for cfg in (ours, theirs):
        del cfg['model']['backbone']
    neck, own_neck = theirs['model'].pop('neck'), ours['model'].pop('neck')
    assert {key for key in neck if neck[key] != own_neck[key]} <= {
        'type', 'in_channels'}
    if 'fcos' in name:  # the base is for Caffe's weights
        del ours['model']['data_preprocessor']
        del theirs['model']['data_preprocessor']
    assert ours == theirs
