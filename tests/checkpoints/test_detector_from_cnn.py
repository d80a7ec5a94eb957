"""Whole detectors of MMDetection are beginnings of adder networks."""
import copy

import mmdet.models  # noqa: F401, registers what the configs name
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.checkpoints import convert_checkpoint, outputs
from mmadder.checkpoints.state_dict import compare_state_dict
from mmadder.errors import InputError
from mmadder.layers import adder_fraction
from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics

BASES = {
    'faster-rcnn': 'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'retinanet': 'mmdet::_base_/models/retinanet_r50_fpn.py'}
NARROW = '''
_base_ = {base!r}
default_scope = 'mmdet'
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16))
if {two!r}:
    model['rpn_head'] = dict(in_channels=16, feat_channels=16)
    model['roi_head'] = dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32,
                       num_classes=7))
else:
    model['bbox_head'] = dict(in_channels=16, feat_channels=16,
                              num_classes=7)
'''
AWN = dict(type='AdderConv2d', weight_norm='AWN', center=True)


def theirs(name, folder):
    """A config of MMDetection, narrow."""
    path = folder / 'theirs.py'
    path.write_text(NARROW.format(base=BASES[name],
                                  two=name == 'faster-rcnn'))
    return Config.fromfile(path)


def ours(config, **neck):
    config = copy.deepcopy(config)
    own = config.model
    own.backbone = dict(
        type='AdderResNet', depth=18, base_channels=8, stem_channels=8,
        out_indices=(0, 1, 2, 3), conv_cfg=AWN)
    own.neck.update(
        type=f'Adder{own.neck.type}', conv_cfg=AWN, **neck)
    return config


def trained_like(model):
    """Filters of all scales, dead ones too; biases and norms that count."""
    torch.manual_seed(0)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and 'head' not in name:
            filters = layer.weight.detach()
            filters += .1 * filters.std() * torch.randn(
                len(filters), 1, 1, 1)
            filters[1] *= 1e-3  # nearly dead
            filters[2] = 0
        if getattr(layer, 'bias', None) is not None:
            nn.init.normal_(layer.bias, std=.1)
        if isinstance(layer, _BatchNorm):
            nn.init.uniform_(layer.weight, .5, 2)
    reestimate_statistics(
        model, [torch.randn(4, 3, 96, 96)], model.extract_feat)
    return model.eval()


def pictures(count=2, size=(128, 96)):
    torch.manual_seed(1)
    return torch.randn(count, 3, *size).cumsum(2).cumsum(3) / 20


def difference(expected, actual):
    pairs = list(zip(expected, actual, strict=True))
    assert all(x.std(0).max() > 1e-3 for x, _ in pairs[:-1])
    return max(((x - y).abs().max() / x.abs().max()).item()
               for x, y in pairs)


def boxes(model):
    """What is found; features in float64, since sorting amplifies rounding."""
    samples = [DetDataSample(metainfo=dict(
        img_shape=(128, 96), ori_shape=(128, 96), pad_shape=(128, 96),
        batch_input_shape=(128, 96), scale_factor=(1., 1.)))
        for _ in range(2)]
    features = [level.float() for level in outputs(model, pictures())]
    model = copy.deepcopy(model).float().eval()
    model.extract_feat = lambda inputs: features
    with torch.no_grad(), DefaultScope.overwrite_default_scope('mmdet'):
        return [sample.pred_instances for sample in
                model.predict(pictures(), samples)]


@pytest.mark.parametrize('shortcut', [False, True])
@pytest.mark.parametrize('name, neck', [
    ('faster-rcnn', 'FPN'), ('retinanet', 'FPN'), ('retinanet', 'PAFPN')])
def test_features_and_boxes(name, neck, shortcut, tmp_path):
    config = theirs(name, tmp_path)
    config.model.neck.type = neck
    cnn = trained_like(build_model(config))
    assert type(cnn.neck).__module__ == f'mmdet.models.necks.{neck.lower()}'
    model = build_model(ours(config, shortcut=shortcut))
    batches = [pictures(size=(256, 256)) for _ in range(2)]
    converted, deviation, _ = convert_checkpoint(
        cnn.state_dict(), model, 'cnn', pictures=batches)
    assert deviation < 1e-10
    fresh = build_model(ours(config, shortcut=shortcut))
    fresh.load_state_dict(converted)  # strict
    assert adder_fraction(fresh) == 0
    x = pictures()
    assert difference(outputs(cnn, x), outputs(fresh, x)) < 1e-5
    exact = build_model(ours(config, shortcut=shortcut)).double()
    convert_checkpoint(cnn.state_dict(), exact, 'cnn', pictures=batches)
    for expected, found in zip(boxes(cnn), boxes(exact), strict=True):
        assert len(expected) > 5
        assert len(found) == len(expected)
        for key in ('scores', 'bboxes'):
            torch.testing.assert_close(
                found[key], expected[key], rtol=1e-4, atol=1e-4)
        assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize('shortcut', [False, True])
def test_function_stays_in_training_mode(shortcut, tmp_path):
    """On the pictures that the added norms have seen, and nothing else."""
    config = theirs('faster-rcnn', tmp_path)
    cnn = trained_like(build_model(config))
    seen = pictures(4, (256, 256))
    x = seen.double()

    def deviation(batches):
        model = build_model(ours(config, shortcut=shortcut))
        convert_checkpoint(cnn.state_dict(), model, 'cnn', pictures=batches)
        model.double().eval()
        model.neck.train()
        with torch.no_grad():
            features = model.backbone(x)
            return difference(outputs(cnn, x), model.neck(features))

    assert deviation([seen]) < 1e-2  # unbiased and biased variance differ
    assert deviation(None) > .1  # noise


def test_noise_is_warned_of(tmp_path, warnings):
    config = theirs('faster-rcnn', tmp_path)
    cnn = trained_like(build_model(config))
    convert_checkpoint(cnn.state_dict(), build_model(ours(config)), 'cnn')
    assert 'begin with statistics of noise' in ''.join(warnings)
    warnings.clear()
    convert_checkpoint(cnn.state_dict(), build_model(ours(config)), 'cnn',
                       pictures=[pictures(size=(256, 256))])
    assert 'noise' not in ''.join(warnings)


@pytest.mark.parametrize('name, left_out', [
    ('faster-rcnn', ['roi_head.bbox_head.fc_cls',
                     'roi_head.bbox_head.fc_reg']),
    ('retinanet', ['bbox_head.retina_cls'])])
def test_heads_for_other_classes_train_anew(
        name, left_out, tmp_path, warnings):
    config = theirs(name, tmp_path)
    cnn = trained_like(build_model(config))
    head = config.model.get('roi_head', config.model).bbox_head
    head.num_classes = 3
    model = build_model(ours(config, shortcut=False))
    converted, *_ = convert_checkpoint(
        cnn.state_dict(), model, 'cnn', pictures=[pictures(size=(256, 256))])
    keys = {f'{layer}.{kind}' for layer in left_out
            for kind in ('weight', 'bias')}
    difference = compare_state_dict(model, converted)
    assert set(difference.missing) == keys
    assert not difference.unexpected and not difference.misshapen
    assert 'of another number of classes in the checkpoint, so left out, to ' \
        'be trained anew' in warnings[-1]
    assert all(key in warnings[-1] for key in keys)


def test_another_number_of_anchors_is_no_number_of_classes(tmp_path):
    config = theirs('faster-rcnn', tmp_path)
    cnn = trained_like(build_model(config))
    config.model.rpn_head.anchor_generator.scales = [4, 8]
    with pytest.raises(InputError, match='of another shape: rpn_head.rpn_cls'):
        convert_checkpoint(
            cnn.state_dict(), build_model(ours(config)), 'cnn')


def test_adders_in_a_head_are_refused(tmp_path):
    config = theirs('retinanet', tmp_path)
    cnn = build_model(config)
    config = ours(config)
    config.model.bbox_head.update(
        conv_cfg=AWN, norm_cfg=dict(type='BN'), init_cfg=None)
    with pytest.raises(InputError, match='bbox_head.cls_convs.0.conv is an '
                       'adder in a head, and only those of backbone and neck'):
        convert_checkpoint(cnn.state_dict(), build_model(config), 'cnn')
