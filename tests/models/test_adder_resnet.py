import copy

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import nn

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.models import AdderResNet, AdderResNetCIFAR

NARROW = dict(stem_channels=8, base_channels=8)


def adders(model):
    return [m for m in model.modules() if isinstance(m, AdderConv2d)]


def shapes(model):
    return {key: tuple(value.shape)
            for key, value in model.state_dict().items()}


def narrow_resnet(**kwargs):
    return AdderResNet(18, **{**NARROW, **kwargs})


def classifier(depth=18, num_classes=3, **kwargs):
    """MMPretrain's ImageClassifier with an AdderResNet."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MMPRETRAIN_MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(
                type='AdderResNet', depth=depth, **{**NARROW, **kwargs}),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=num_classes,
                in_channels=64, topk=(1, ))))


def single_stage(**backbone):
    """A MMDetection detector, RetinaNet, with an AdderResNet."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MMDET_MODELS.build(dict(
            type='RetinaNet',
            backbone=dict(
                type='AdderResNet', depth=18, out_indices=(0, 1, 2, 3),
                **{**NARROW, **backbone}),
            neck=dict(type='AdderFPN', in_channels=[8, 16, 32, 64],
                      out_channels=8),
            bbox_head=dict(
                type='RetinaHead', num_classes=3, in_channels=8,
                feat_channels=8)))


def pretrained(path, **kwargs):
    return dict(type='Pretrained', checkpoint=str(path), **kwargs)


@pytest.fixture(scope='module')
def classifier_and_file(tmp_path_factory):
    """A classifier with random statistics and its checkpoint."""
    torch.manual_seed(0)
    model = classifier()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))
    path = tmp_path_factory.mktemp('pretrained') / 'epoch_1.pth'
    torch.save(dict(meta={}, state_dict=model.state_dict()), path)
    return model, path


@pytest.mark.parametrize('depth, layers, channels', [
    (18, 19, 4736),
    # Blocks 3, 4, 6, 3 of two (or three) adders, and their downsamples: the
    # first stage of ResNet-50 has one too.
    (34, 35, 6 * 64 + 9 * 128 + 13 * 256 + 7 * 512),
    (50, 52, 3 * 384 + 256 + 4 * 768 + 512 + 6 * 1536 + 1024 + 3 * 3072
     + 2048),
])
def test_adder_layers(depth, layers, channels):
    model = AdderResNet(depth)
    assert len(adders(model)) == layers
    assert sum(layer.out_channels for layer in adders(model)) == channels
    convolutions = [name for name, m in model.named_modules()
                    if isinstance(m, nn.Conv2d)]
    assert convolutions == ['conv1']


@pytest.mark.parametrize('depth, layers, channels', [
    (20, 20, 768), (32, 32, 1216)])
def test_adder_layers_for_cifar(depth, layers, channels):
    model = AdderResNetCIFAR(depth)
    assert len(adders(model)) == layers
    assert sum(layer.out_channels for layer in adders(model)) == channels
    assert [name for name, m in model.named_modules()
            if isinstance(m, nn.Conv2d)] == ['conv1']
    cnn = AdderResNetCIFAR(depth, conv_cfg=None)
    assert not adders(cnn)
    assert shapes(cnn) == {key: shape for key, shape in shapes(model).items()
                           if '.awn.' not in key}


def test_resolutions_for_cifar():
    """The stem keeps the size, the stages halve it twice."""
    model = AdderResNetCIFAR(20, out_indices=(0, 1, 2))
    assert [tuple(x.shape) for x in model(torch.rand(2, 3, 32, 30))] == [
        (2, 16, 32, 30), (2, 32, 16, 15), (2, 64, 8, 8)]


def test_depth_error_for_cifar():
    with pytest.raises(InputError, match=r'AdderResNetCIFAR.*\(20, 32\), '
                       'got 18'):
        AdderResNetCIFAR(18)


def test_downsample_is_a_1x1_adder():
    layer = narrow_resnet().layer2[0].downsample[0]
    assert isinstance(layer, AdderConv2d)
    assert tuple(layer.weight.shape[2:]) == (1, 1)


def test_deep_stem_stays_convolutional():
    model = narrow_resnet(deep_stem=True)
    assert not adders(model.stem)
    assert len(adders(model)) == 19


@pytest.mark.parametrize('depth', [18, 34, 50])
def test_cnn_twin_differs_in_awn_keys_only(depth):
    adder = shapes(AdderResNet(depth, **NARROW))
    cnn = AdderResNet(depth, conv_cfg=None, **NARROW)
    assert not adders(cnn)
    assert shapes(cnn) == {key: shape for key, shape in adder.items()
                           if '.awn.' not in key}


@pytest.mark.parametrize('depth', [101, '18', None])
def test_depth_error(depth):
    with pytest.raises(InputError, match=r'one of \(18, 34, 50\), got '):
        AdderResNet(depth)


@pytest.mark.parametrize('registry, scope', [
    (MODELS, 'mmengine'), (MMDET_MODELS, 'mmdet'),
    (MMPRETRAIN_MODELS, 'mmpretrain')])
def test_name_is_known_in_every_scope(registry, scope):
    conv_cfg = dict(type='AdderConv2d',
                    weight_norm=dict(type='AWN', upsilon=0.5), eta=5.)
    cfg = dict(type='AdderResNet', depth=18, conv_cfg=conv_cfg, **NARROW)
    before = copy.deepcopy(cfg)
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.build(cfg)
    assert type(model) is AdderResNet
    assert model.conv_cfg == conv_cfg
    assert torch.equal(adders(model)[0].awn.upsilon, torch.full((8, ), 0.5))
    assert cfg == before


def test_output_shapes():
    model = narrow_resnet(out_indices=(0, 1, 2, 3))
    outputs = model(torch.rand(2, 3, 60, 64))
    assert [tuple(x.shape) for x in outputs] == [
        (2, 8, 15, 16), (2, 16, 8, 8), (2, 32, 4, 4), (2, 64, 2, 2)]


def test_init_weights_keeps_the_adders_initialization():
    model = AdderResNet(18)
    model.init_weights()
    for layer in adders(model):
        # N(0, 1), of 4,096 numbers or more
        assert abs(layer.weight.mean()) < 0.1
        assert abs(layer.weight.std() - 1) < 0.1
    # The stem's own initialization, Kaiming's for fan-out.
    assert model.conv1.weight.std().item() == pytest.approx(
        (2 / (64 * 49)) ** 0.5, rel=0.1)


def test_norms_learn_in_a_detector():
    backbone = single_stage().train().backbone
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    sum(x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))
        ).backward()
    for norm, running_mean in zip(norms, before):
        assert norm.training
        assert not torch.equal(norm.running_mean, running_mean)
        assert norm.weight.grad is not None
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize('zero_init_residual', [False, True])
def test_first_gradients_are_finite(zero_init_residual):
    model = narrow_resnet(zero_init_residual=zero_init_residual)
    model.init_weights()
    model(torch.rand(2, 3, 64, 64))[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    last = model.layer4[1]
    assert bool(last.bn2.weight.any()) is not zero_init_residual
    assert bool(last.conv2.weight.grad.any()) is not zero_init_residual


def test_frozen_stages():
    model = narrow_resnet(frozen_stages=1)
    model.train()
    assert not any(p.requires_grad for p in model.layer1.parameters())
    assert not model.layer1[0].bn1.training
    assert all(p.requires_grad for p in model.layer2.parameters())


@pytest.mark.parametrize('prefix', ['backbone.', 'backbone'])
def test_classifier_checkpoint_loads_into_a_detector(
        classifier_and_file, prefix):
    model, path = classifier_and_file
    detector = single_stage(init_cfg=pretrained(path, prefix=prefix))
    detector.init_weights()
    expected = model.backbone.state_dict()
    loaded = detector.backbone.state_dict()
    assert loaded.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', None])
@pytest.mark.parametrize('parallel', ['', 'module.'])
def test_wrapped_checkpoints(classifier_and_file, tmp_path, wrapper,
                             parallel):
    model, _ = classifier_and_file
    state_dict = {parallel + key: value
                  for key, value in model.state_dict().items()}
    torch.save({wrapper: state_dict} if wrapper else state_dict,
               tmp_path / 'wrapped.pth')
    backbone = narrow_resnet(
        init_cfg=pretrained(tmp_path / 'wrapped.pth', prefix='backbone.'))
    backbone.init_weights()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value), key


def test_bare_backbone_needs_no_prefix(classifier_and_file, tmp_path):
    model, _ = classifier_and_file
    torch.save(
        # torchvision's files end with the classifier
        {**model.backbone.state_dict(), 'fc.weight': torch.ones(3, 64)},
        tmp_path / 'bare.pth')
    backbone = narrow_resnet(init_cfg=pretrained(tmp_path / 'bare.pth'))
    backbone.init_weights()
    assert torch.equal(backbone.conv1.weight, model.backbone.conv1.weight)


def test_pretrained_outlasts_zero_init(classifier_and_file):
    """With a list of init_cfg, MMPretrain zeroes the norms after loading."""
    model, path = classifier_and_file
    backbone = narrow_resnet(
        zero_init_residual=True,
        init_cfg=[dict(type='Kaiming', layer='Conv2d'),
                  pretrained(path, prefix='backbone.')])
    backbone.init_weights()
    assert torch.equal(backbone.layer4[1].bn2.weight,
                       model.backbone.layer4[1].bn2.weight)


def test_second_init_weights_does_not_load_again(classifier_and_file):
    _, path = classifier_and_file
    backbone = narrow_resnet(init_cfg=pretrained(path, prefix='backbone.'))
    backbone.init_weights()
    nn.init.zeros_(backbone.conv1.weight)
    backbone.init_weights()
    assert not backbone.conv1.weight.any()


@pytest.mark.parametrize('backbone, init, message', [
    (dict(), dict(), r"backbone\.conv1\.weight(.|\n)*"
     r"set prefix='backbone\.'"),
    (dict(), dict(prefix='model.'),
     r"begins with 'model\.'; its keys begin with backbone, head"),
    (dict(conv_cfg=None), dict(prefix='backbone.'),
     r'has adders .*\(awn\) in layer1\.0\.conv1, .*convolutions \(cnn\)'),
    (dict(base_channels=16), dict(prefix='backbone.'),
     r'layer1\.0\.conv1\.weight \(\(8, 8, 3, 3\) in the file, '
     r'\(16, 8, 3, 3\) in the model\)'),
    (dict(depth=34), dict(prefix='backbone.'),
     r'missing from the file: layer1\.2\.conv1\.weight'),
])
def test_checkpoint_of_another_model(classifier_and_file, backbone, init,
                                     message):
    _, path = classifier_and_file
    backbone = {'depth': 18, **NARROW, **backbone}
    model = AdderResNet(init_cfg=pretrained(path, **init), **backbone)
    with pytest.raises(InputError, match=message) as error:
        model.init_weights()
    assert str(path) in str(error.value)


def test_missing_checkpoint():
    model = narrow_resnet(init_cfg=pretrained('no/such/file.pth'))
    with pytest.raises(InputError, match='file.pth. does not exist.*init_cfg'):
        model.init_weights()
