"""Whoever looks into a config finds its types where they are classes."""
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import VOCDataset
from mmpretrain.datasets import CIFAR10
from new_style import CLASSIFIER, DETECTOR, write_new_style

from mmadder import apis, cli
from mmadder.analysis.complexity import input_shape
from mmadder.analysis.detection_report import run_facts
from mmadder.checkpoints.state_dict import load_pretrained
from mmadder.checkpoints.variants import recorded_config, recorded_variants
from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.models import build_model
from mmadder.robustness.detection import require_voc_metric
from mmadder.robustness.pictures import require_late_boxes

TOOLS = Path(__file__).parents[2] / 'tools'
CONV_CFGS = dict(
    cnn='None', ann='dict(type=AdderConv2d)',
    ws='dict(type=AdderConv2d, weight_norm=dict(type=WS))',
    awn='dict(type=AdderConv2d, weight_norm=AWN)')


@pytest.fixture(params=['classes', 'dotted'])
def load(request, tmp_path):
    """Return a function that loads a config, or what a run dumps of it."""

    def load_config(text, *args):
        path = write_new_style(tmp_path, text, *args)
        if request.param == 'dotted':
            config = cli.load_config(str(path))
            path = tmp_path / 'dumped.py'
            config.dump(path)
        return cli.load_config(str(path))

    return load_config


def save(config, path):
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(config).state_dict(),
                    meta=dict(cfg=config.pretty_text)), path)
    return str(path)


@pytest.mark.parametrize('text, name', [
    (DETECTOR, 'mmdet'), (CLASSIFIER, 'mmpretrain')])
def test_scope_is_that_of_the_model(load, text, name):
    assert load(text).default_scope == name


@pytest.mark.parametrize('text', [DETECTOR, CLASSIFIER])
@pytest.mark.parametrize('variant', CONV_CFGS)
def test_recorded_variants(load, text, variant):
    config = load(text, CONV_CFGS[variant])
    checkpoint = dict(meta=dict(cfg=config.pretty_text))
    neck = variant if text is DETECTOR else 'cnn'
    found = recorded_variants(checkpoint)
    assert found == dict(backbone=variant, neck=neck)
    built, own = (build_model(cfg) for cfg in (
        recorded_config(checkpoint, config), config))
    assert repr(built.backbone) == repr(own.backbone)
    assert repr(built.neck) == repr(own.neck)


def test_other_adders_are_refused(load, tmp_path):
    path = save(load(CLASSIFIER, CONV_CFGS['ws']), tmp_path / 'ws.pth')
    twin = build_model(load(CLASSIFIER, CONV_CFGS['cnn']))
    with pytest.raises(InputError, match=r'\(ws\) in backbone'):
        load_pretrained(twin, path)


def test_pretrained_backbone_loads_whole(load, tmp_path):
    path = save(load(CLASSIFIER), tmp_path / 'awn.pth')
    pretrained = f'''
from mmengine.model import PretrainedInit
model['backbone'].update(init_cfg=dict(
    type=PretrainedInit, checkpoint={path!r}, prefix='backbone.'))
'''
    model = build_model(load(DETECTOR, CONV_CFGS['awn'], pretrained))
    model.init_weights()
    wanted = torch.load(path)['state_dict']['backbone.conv1.weight']
    assert torch.equal(model.backbone.conv1.weight, wanted)
    model = build_model(load(DETECTOR, CONV_CFGS['cnn'], pretrained))
    with pytest.raises(InputError, match=r'has .*\(awn\) in layer1'):
        model.init_weights()


def test_hooks_are_added_once(load, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')  # the code under test sets it
    path = load(DETECTOR, CONV_CFGS['awn'], '''
from mmadder.analysis import DetectionReportHook
from mmadder.engine import LossScaleHook
custom_hooks = [dict(type=LossScaleHook, average_gradients=True),
                dict(type=DetectionReportHook)]
''').filename
    cfg = cli.runner_config(cli.make_parser('Do').parse_args([path]), ())
    assert [type_name(hook) for hook in cfg.custom_hooks] == [
        'LossScaleHook', 'DetectionReportHook', 'AdderClipGradHook',
        'AdderCheckHook', 'CheckpointCheckHook']
    assert 'report' not in cfg.get('default_hooks', {})


@pytest.mark.parametrize('own', [[], ['CrossEntropyMetric']])
def test_record_finds_the_accuracy(load, own):
    cfg = load(CLASSIFIER, CONV_CFGS['awn'], '''
from mmadder.evaluation import CrossEntropyMetric
val_evaluator = [dict(type=Accuracy), *(
    dict(type=CrossEntropyMetric) for _ in OWN)]
'''.replace('OWN', str(own)))
    cfg.custom_hooks = []
    runpy.run_path(str(TOOLS / 'train.py'))['record'](cfg, 1)
    assert len(cfg.val_evaluator) == 2


def test_shape_facts_metric_and_boxes(load):
    cfg = load(DETECTOR)
    assert input_shape(cfg) == (64, 96)
    assert input_shape(load(CLASSIFIER)) == (32, 32)
    facts = dict(run_facts(cfg))
    assert facts['detector'] == 'RetinaNet' and facts['neck'] == 'AdderFPN'
    assert facts['backbone'].startswith('AdderResNet, ')
    require_voc_metric(cfg.test_evaluator)
    require_late_boxes(cfg.test_dataloader.dataset)
    cfg.test_dataloader.dataset.pipeline.reverse()
    with pytest.raises(InputError, match="behind Resize.*'LoadAnnotations'"):
        require_late_boxes(cfg.test_dataloader.dataset)


@pytest.mark.parametrize('text, classes', [
    (DETECTOR, VOCDataset.METAINFO['classes']),
    (CLASSIFIER, CIFAR10.METAINFO['classes'])])
def test_image_demo(load, monkeypatch, tmp_path, capsys, text, classes):
    config = load(text)
    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(
        0, 255, (48, 56, 3), dtype=np.uint8))
    monkeypatch.setattr(sys, 'argv', ['image_demo.py', *map(str, (
        tmp_path / 'a.png', config.filename, save(config, tmp_path / 'a.pth'),
        '--out', tmp_path / 'out', '--score-thr', 0, '--device', 'cpu'))])
    runpy.run_path(str(TOOLS / 'image_demo.py'), run_name='__main__')
    said = capsys.readouterr().out.splitlines()[-1].rpartition('a.png: ')[2]
    assert said == '20 boxes' or said.split(',')[0] in classes
    assert (tmp_path / 'out' / 'a.png').is_file()
    assert apis.load(config, str(tmp_path / 'a.pth')).classes == classes
