"""Checkpoints of other layers than the config's are refused by name."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from mmadder.checkpoints.safe_loading import data_only
from mmadder.checkpoints.state_dict import load_pretrained
from mmadder.checkpoints.variants import (
    NAMES,
    recorded_config,
    recorded_variants,
    require_connections,
    require_variant,
)
from mmadder.errors import InputError
from mmadder.models import AdderFPN, AdderResNet

CONV_CFGS = dict(
    cnn=None, ann=dict(type='AdderConv2d', weight_norm=None),
    ws=dict(type='AdderConv2d', weight_norm='WS'),
    awn=dict(type='AdderConv2d', weight_norm=dict(type='AWN', upsilon=.5)))
CONV_CFGS.update({
    f'{name}-centered': dict(CONV_CFGS[name], center=True)
    for name in ('ws', 'awn')})
SMALL = dict(depth=18, stem_channels=4, base_channels=4)
LOSSLESS = [('ann', 'awn'), ('ws', 'ann'), ('ws', 'awn'), ('awn', 'ann'),
            ('ws-centered', 'awn-centered')]


def make_config(variant, **kwargs):
    backbone = dict(type='AdderResNet', conv_cfg=CONV_CFGS[variant], **SMALL)
    return Config(dict(
        default_scope='mmpretrain', model=dict(
            type='ImageClassifier', backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=32,
                      topk=(1, ))), **kwargs))


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def models():
    return {variant: build(make_config(variant)) for variant in CONV_CFGS}


@pytest.fixture
def save(models, tmp_path):
    """Return a function that writes a checkpoint and gives its path."""

    def write(variant, with_config=True):
        path = tmp_path / 'file.pth'
        text = make_config(variant).pretty_text
        torch.save(dict(
            state_dict=models[variant].state_dict(),
            meta=dict(cfg=text) if with_config else {}), path)
        return str(path)

    return write


@pytest.mark.parametrize('variant', CONV_CFGS)
def test_recorded_variants(variant):
    text = make_config(variant).pretty_text
    assert recorded_variants(dict(meta=dict(cfg=text))) == dict(
        backbone=variant, neck='cnn')


def test_recorded_variants_of_a_detector():
    text = '''
model = 3
model = dict(
    backbone=dict(type='mmadder.models.AdderResNet', depth=18),
    neck=[dict(type='AdderFPN', conv_cfg=dict(
        type='AdderConv2d', weight_norm=dict(type='WS')))],
    data_preprocessor=dict(type='Pre', mean=[-1., open('x')]),
    roi_head=dict(bbox_head=[dict(type='H', conv_cfg=dict({
        'type': 'AdderConv2d'})), dict(type='H', conv_cfg=dict(type='DCN'))]),
    rpn_head=dict(type='RPNHead'))
'''
    assert recorded_variants(dict(meta=dict(cfg=text))) == {
        'backbone': 'awn', 'neck.0': 'ws', 'roi_head.bbox_head.0': 'ann'}


@pytest.mark.parametrize('checkpoint', [
    [], {}, dict(meta=None), dict(meta=dict(cfg=None)),
    dict(meta=dict(cfg='x = 1')), dict(meta=dict(cfg='no python')),
    dict(meta=dict(cfg='model = ' + '(' * 10000))])
def test_nothing_recorded(checkpoint):
    assert recorded_variants(checkpoint) == {}


def test_config_is_not_executed(tmp_path):
    path = tmp_path / 'ran'
    text = f'model = dict(backbone=dict(type=open({str(path)!r}, "w")))'
    recorded_variants(dict(meta=dict(cfg=text)))
    assert not path.exists()


def test_recorded_config_builds_the_source():
    own = make_config('awn')
    own.model.backbone.update(
        conv_cfg=dict(type='AdderConv2d', weight_norm=dict(
            type='AWN', eps=.5)), frozen_stages=-1, init_cfg=dict(
                type='Pretrained', checkpoint='none.pth'))
    own.model.head.loss = dict(type='LabelSmoothLoss', label_smooth_val=.1)
    config = make_config('ann', work_dir='here')
    recorded = recorded_config(dict(meta=dict(cfg=own.pretty_text)), config)
    assert recorded.work_dir == 'here'
    model = build(recorded)
    assert model.backbone.layer1[0].conv1.awn.eps == .5
    assert model.backbone.frozen_stages == -1
    assert config.model.backbone.conv_cfg == CONV_CFGS['ann']
    assert recorded_config(dict(meta={}), config) is None


@pytest.mark.parametrize('type_', [
    'subprocess.Popen', 'ResNet', 'torch.nn.Linear', None, 3])
@pytest.mark.parametrize('place', ['backbone', 'extra', 'list'])
def test_recorded_config_chooses_no_types(type_, place):
    own, config = make_config('ann'), make_config('awn')
    own.model.pop('data_preprocessor', None)
    part = dict(type=type_, args=['touch', 'ran'])
    own.model.update(
        {'list': dict(extra=[part])} if place == 'list' else {place: part})
    with pytest.raises(InputError, match='which the config does not have'):
        recorded_config(dict(meta=dict(cfg=own.pretty_text)), config)


def test_recorded_types_are_the_own_ones():
    """By name: a module of the file's choice is never imported."""
    own, config = make_config('ann'), make_config('awn')
    own.model.type = 'evil.Detector'
    own.model._scope_ = 'evil'
    own.model.backbone.type = 'evil.AdderResNet'
    config.model.backbone.type = AdderResNet
    recorded = recorded_config(dict(meta=dict(cfg=own.pretty_text)), config)
    assert recorded.model.type == 'ImageClassifier'
    assert recorded.model.backbone.type is AdderResNet
    assert '_scope_' not in recorded.model


@pytest.mark.parametrize('key', ['cfg', 'config'])  # of MMEngine, before
@pytest.mark.parametrize('backbone, neck, message', [
    (dict(style='caffe'), dict(type='FPN'),
     "has model.backbone.style='caffe', the config has 'pytorch'"),
    ({}, dict(type='FPN', norm_cfg=dict(type='BN')),
     'has model.neck.shortcut=False, the config has True'),
    ({}, dict(type='AdderFPN', conv_cfg=None, shortcut=False),
     'has model.neck.shortcut=False, the config has True'),
    ({}, dict(type='AdderFPN', conv_cfg=None), None),
    (dict(style='pytorch'), dict(type='FPN'), None),  # without norm
    ({}, dict(type='GlobalAveragePooling'), None)])
def test_connections_that_no_key_shows(
        backbone, neck, message, key, tmp_path):
    config = Config(dict(model=dict(
        backbone=dict(type='AdderResNet'), neck=dict(type='AdderFPN'))))
    recorded = Config(dict(model=dict(
        backbone=dict(type='ResNet', **backbone), neck=neck)))
    path = tmp_path / 'cnn.pth'  # read as all command lines read
    torch.save(dict(meta={key: recorded.pretty_text}), path)
    with data_only():
        checkpoint = torch.load(path)
    if message is None:
        require_connections(checkpoint, config)
    else:
        with pytest.raises(InputError, match=message):
            require_connections(checkpoint, config)
    require_connections(dict(state_dict={}), config)


@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
@pytest.mark.parametrize('found', CONV_CFGS)
@pytest.mark.parametrize('own', CONV_CFGS)
def test_pretrained(save, models, prefix, found, own):
    path = save(found)
    model = models[own] if prefix is None else models[own].backbone
    if found == own:
        load_pretrained(model, path, prefix)
        return
    with pytest.raises(InputError) as error:
        load_pretrained(model, path, prefix)
    message = str(error.value)
    assert f'file.pth has {NAMES[found]} in ' in message
    assert f'the config has {NAMES[own]} there' in message
    command = f'convert_checkpoint.py CONFIG {path} OUT.pth --source {found}\n'
    assert (command in message) == ((found, own) in LOSSLESS)
    assert ('No conversion' in message) == ((found, own) not in LOSSLESS)


@pytest.mark.parametrize('found', CONV_CFGS)
@pytest.mark.parametrize('own', CONV_CFGS)
def test_without_config_the_keys_decide(save, models, found, own):
    path, model = save(found, with_config=False), models[own]
    has_awn = own.startswith('awn')
    if found.startswith('awn') == has_awn:
        load_pretrained(model, path)
        return
    with pytest.raises(InputError, match='adaptive weight norm') as error:
        load_pretrained(model, path)
    assert ('If it has adders, this converts it without loss' in
            str(error.value)) == has_awn
    centered = '-centered' * own.endswith('-centered')
    assert (f'--source ann{centered} or ws{centered}' in
            str(error.value)) == has_awn


def test_parts_are_compared_apart():
    """A neck of other layers; a file of a backbone alone says nothing."""
    model = torch.nn.ModuleDict(dict(
        backbone=AdderResNet(**SMALL),
        neck=AdderFPN([4, 8], 4, conv_cfg=None)))
    state_dict = model.state_dict()
    require_variant(model, state_dict, dict(backbone='awn', neck='cnn'), 'F')
    with pytest.raises(InputError, match=r'F has .*\(ann\) in neck, .*\(cnn'):
        require_variant(model, state_dict, dict(neck='ann'), 'F')
    backbone = {key: x for key, x in state_dict.items() if 'neck' not in key}
    require_variant(model, backbone, dict(backbone='awn', neck='ann'), 'F')


@pytest.mark.parametrize('verb', ['test', 'resume', 'load_from'])
def test_runner_refuses_before_it_starts(save, cifar, tmp_path, verb):
    path = save('ws')
    loader = dict(batch_size=2, num_workers=0, sampler=dict(
        type='DefaultSampler', shuffle=False), dataset=dict(
            type='CIFAR10Images', data_root=str(cifar)))
    file = tmp_path / 'my_config.py'
    make_config(
        'awn', load_from=path, resume=verb == 'resume',
        work_dir=str(tmp_path / 'work'), experiment_name=f'variant_{verb}',
        custom_hooks=[dict(type='CheckpointCheckHook')],
        train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.1)),
        test_dataloader=loader, test_cfg=dict(),
        test_evaluator=dict(type='Accuracy')).dump(file)
    runner = Runner.from_cfg(Config.fromfile(file))
    with pytest.raises(InputError, match=r'\(ws\) in backbone, .*\(awn\)(.|\n)'
                       r'*convert_checkpoint.py .*my_config.py .*file.pth '
                       'OUT.pth --source ws$'):
        runner.test() if verb == 'test' else runner.train()
