"""The layer against its formula, and inside OpenMMLab's models."""
import copy
import doctest
import io
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmdet.models import FPN, RetinaHead, Shared4Conv1FCBBoxHead
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import ResNet
from torch import nn

import mmadder.layers.adder_conv2d
from mmadder.layers import AWN, WS, AdderConv2d

AWN_CFG = dict(type='AdderConv2d', weight_norm='AWN')
NORM_CFG = dict(type='BN')
WEIGHT_NORMS = [None, 'WS', 'AWN', dict(type='AWN', nu=2., upsilon=.5)]


def standardize(weight):
    axes = (1, 2, 3)
    var = weight.var(axes, correction=0, keepdim=True)
    return (weight - weight.mean(axes, keepdim=True)) / (var + 1e-5).sqrt()


def by_hand(layer, x):
    """Unfold, subtract, sum: differentiable, but not as the layer is."""
    weight = layer.weight
    if layer.ws is not None:
        weight = standardize(weight)
    elif layer.awn is not None:
        nu, upsilon = (p.view(-1, 1, 1, 1) for p in layer.awn.parameters())
        weight = nu * standardize(weight) + upsilon
    outputs = []
    for part, filters in zip(x.chunk(layer.groups, 1),
                             weight.chunk(layer.groups)):
        columns = F.unfold(part, layer.kernel_size, layer.dilation,
                           layer.padding, layer.stride)
        difference = columns[:, None] - filters.flatten(1)[None, ..., None]
        outputs.append(-difference.abs().sum(2))
    output = torch.cat(outputs, 1)
    return output if layer.bias is None else output + layer.bias[:, None]


def adders(model):
    return [m for m in model.modules() if isinstance(m, AdderConv2d)]


def assert_drawn_from_standard_normal(layers):
    assert layers
    values = torch.cat([layer.weight.flatten() for layer in layers])
    assert values.std().item() == pytest.approx(1, abs=.05)
    assert values.mean().item() == pytest.approx(0, abs=.05)


# ---------------------------------------------------------------- values --


@pytest.mark.parametrize('weight_norm', WEIGHT_NORMS)
@pytest.mark.parametrize('options', [
    dict(kernel_size=1),
    dict(kernel_size=3, padding=1),
    dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), groups=2),
    dict(kernel_size=3, dilation=(2, 1), padding=2, bias=True),
])
def test_output_is_the_distance(options, weight_norm):
    layer = AdderConv2d(4, 6, weight_norm=weight_norm, **options).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    output = layer(x)
    torch.testing.assert_close(output.flatten(2), by_hand(layer, x))
    assert output.shape == nn.Conv2d(4, 6, **options).double()(x).shape


@pytest.mark.parametrize('eta', [.2, .05, None])
def test_scaled_gradient_goes_through_the_weight_norm(eta):
    layer = AdderConv2d(3, 5, 3, padding=1, eta=eta, weight_norm=dict(
        type='AWN', nu=1.5, upsilon=.25)).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    grad_output = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    layer(x).backward(grad_output)

    nu, upsilon = (p.view(-1, 1, 1, 1) for p in layer.awn.parameters())
    weight = nu * standardize(layer.weight) + upsilon
    columns = F.unfold(x.detach(), 3, padding=1)
    g = grad_output.flatten(2)
    raw = (torch.einsum('nop,njp->oj', g, columns)
           - weight.flatten(1) * g.sum((0, 2))[:, None])
    if eta is not None:
        raw = eta * math.sqrt(raw.numel()) / raw.norm() * raw
    expected = torch.autograd.grad(
        weight, list(layer.parameters()), raw.view_as(weight))
    for parameter, grad in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)

    clipped = (weight.flatten(1)[..., None] - columns[:, None]).clamp(-1, 1)
    grad_input = F.fold(
        (clipped * g[:, :, None]).sum(1), (6, 7), 3, padding=1)
    torch.testing.assert_close(x.grad, grad_input)


def test_options_reach_the_operator():
    x = torch.full((1, 1, 1, 1), .25, requires_grad=True)
    for input_gradient, expected in (('hardtanh', .25), ('sign', 1.)):
        layer = AdderConv2d(1, 1, 1, mode='max',
                            input_gradient=input_gradient)
        nn.init.constant_(layer.weight, .5)
        grad, = torch.autograd.grad(layer(x).sum(), x)
        assert grad.item() == expected
    with pytest.raises(ValueError, match='mode must be one of'):
        AdderConv2d(1, 1, 1, mode='fast')(x)


def test_every_padded_zero_is_a_sample():
    layer = AdderConv2d(2, 3, 3, padding=2)
    output = layer(torch.zeros(1, 2, 4, 4))
    expected = -layer.weight.abs().sum((1, 2, 3)).view(1, 3, 1, 1)
    torch.testing.assert_close(output, expected.expand(1, 3, 6, 6))


@pytest.mark.parametrize('weight_norm', WEIGHT_NORMS)
def test_gradients_that_are_zero_do_not_become_nan(weight_norm):
    layer = AdderConv2d(3, 4, 3, weight_norm=weight_norm)
    layer(torch.randn(1, 3, 5, 5)).mul(0).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.abs().max() == 0


# ---------------------------------------------------------------- module --


def test_docstring_example():
    result = doctest.testmod(
        mmadder.layers.adder_conv2d,
        extraglobs=dict(torch=torch, AdderConv2d=AdderConv2d))
    assert result.attempted and not result.failed


@pytest.mark.parametrize('weight_norm, keys', [
    (None, {'weight'}), ('WS', {'weight'}),
    ('AWN', {'weight', 'awn.nu', 'awn.upsilon'})])
def test_state_dict_keys(weight_norm, keys):
    layer = AdderConv2d(2, 3, 3, weight_norm=weight_norm)
    assert layer.state_dict().keys() == keys
    layer = AdderConv2d(2, 3, 3, bias=True, weight_norm=weight_norm)
    assert layer.state_dict().keys() == keys | {'bias'}


def test_weight_norm_may_be_a_config():
    layer = AdderConv2d(2, 3, 3, weight_norm=dict(
        type='AWN', nu=2., upsilon=.5, eps=1e-3))
    assert layer.awn.nu.tolist() == [2.] * 3
    assert layer.awn.upsilon.tolist() == [.5] * 3
    assert layer.awn.eps == 1e-3
    cfg = dict(type=WS, eps=1e-3)
    layer = AdderConv2d(2, 3, 3, weight_norm=cfg)
    assert isinstance(layer.ws, WS) and layer.ws.eps == 1e-3
    assert cfg == dict(type=WS, eps=1e-3)  # the caller's is not changed


def test_init_weights_draws_anew():
    torch.manual_seed(0)
    layer = AdderConv2d(16, 16, 3, bias=True, weight_norm='AWN')
    assert_drawn_from_standard_normal([layer])
    for parameter in layer.parameters():
        nn.init.constant_(parameter, 3.)
    layer.init_weights()
    assert_drawn_from_standard_normal([layer])
    assert layer.bias.abs().max() == 0
    assert layer.awn.nu.eq(1).all() and layer.awn.upsilon.eq(0).all()


def test_copy_and_pickle():
    layer = AdderConv2d(3, 4, 3, bias=True, weight_norm='AWN')
    x = torch.randn(1, 3, 5, 5)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
        assert twin in AdderConv2d.instances
        assert twin.weight is not layer.weight


@pytest.mark.parametrize('dtype', [
    torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('weight_norm', [None, 'WS', 'AWN'])
def test_other_dtypes(dtype, weight_norm):
    layer = AdderConv2d(8, 4, 3, padding=1, weight_norm=weight_norm)
    x = torch.randn(1, 8, 5, 5)
    expected = layer(x)
    layer.to(dtype)
    output = layer(x.to(dtype).requires_grad_())
    output.sum().backward()
    assert output.dtype == layer.weight.grad.dtype == dtype
    torch.testing.assert_close(
        output.float(), expected,
        rtol=max(1e-5, 4 * torch.finfo(dtype).eps), atol=0)


def test_autocast_gives_float32_and_trains():
    layer = AdderConv2d(8, 4, 3, padding=1, weight_norm='AWN')
    x = torch.randn(1, 8, 5, 5).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = layer(x)
    torch.testing.assert_close(output, layer(x.float()))
    output.sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_repr_names_what_matters():
    text = repr(AdderConv2d(3, 8, 3, stride=2, weight_norm='AWN', eta=None))
    for part in ('3, 8, kernel_size=(3, 3), stride=(2, 2)', 'eta=None',
                 '(awn): AWN(8, nu=1.0, upsilon=0.0'):
        assert part in text


@pytest.mark.parametrize('change, message', [
    (dict(in_channels=4, groups=3), 'groups must divide in_channels.*3 and'),
    (dict(out_channels=5, groups=2), 'groups must divide out_channels'),
    (dict(groups=0), 'groups must be at least 1, got 0'),
    (dict(in_channels=0), 'in_channels must be at least 1'),
    (dict(out_channels=-1), 'out_channels must be at least 1'),
    (dict(kernel_size=0), 'kernel_size must be .* at least 1, got 0'),
    (dict(kernel_size=(3, 3, 3)), r'kernel_size must be .*got \(3, 3, 3\)'),
    (dict(stride=(1, 0)), r'stride must be .* at least 1, got \(1, 0\)'),
    (dict(padding=-1), 'padding must be .* at least 0, got -1'),
    (dict(padding='same'), "padding must be .*got 'same'"),
    (dict(dilation=1.5), 'dilation must be .*got 1.5'),
    (dict(eta=0), 'eta must be positive or None, got 0'),
    (dict(eta=-.2), 'eta must be positive'),
    (dict(padding_mode='reflect'), "padding_mode must be 'zeros', got 'refl"),
    (dict(weight_norm='BN'), r"weight_norm must be .*\('AWN', 'WS'\).*'BN'"),
    (dict(weight_norm=True), 'weight_norm must be None, one of.*True'),
    (dict(weight_norm=dict(nu=1.)), "weight_norm must be .*'nu': 1.0"),
])
def test_errors_name_the_argument(change, message):
    arguments = dict(in_channels=4, out_channels=6, kernel_size=3)
    with pytest.raises(ValueError, match=message):
        AdderConv2d(**dict(arguments, **change))


# ------------------------------------------------------------- OpenMMLab --


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'mmengine'])
def test_conv_module(scope):
    with DefaultScope.overwrite_default_scope(scope):
        module = ConvModule(
            4, 8, (3, 1), stride=2, padding=(1, 0), conv_cfg=AWN_CFG,
            norm_cfg=NORM_CFG)
    assert type(module.conv) is AdderConv2d
    assert isinstance(module.conv.awn, AWN)
    assert module.conv.bias is None
    assert module.kernel_size == (3, 1) and module.stride == (2, 2)
    assert not module.transposed and module.output_padding == (0, 0)
    assert_drawn_from_standard_normal(adders(ConvModule(
        32, 32, 3, conv_cfg=AWN_CFG)))
    assert module(torch.randn(2, 4, 8, 9)).shape == (2, 8, 4, 5)


def test_conv_module_without_norm_has_a_bias():
    module = ConvModule(4, 8, 3, conv_cfg=dict(type='AdderConv2d'))
    assert module.conv.bias.eq(0).all()


def test_mmpretrain_resnet():
    model = ResNet(18, base_channels=8, stem_channels=8, conv_cfg=AWN_CFG,
                   zero_init_residual=False)
    layers = adders(model)
    assert len(layers) == 20 and model.conv1 in layers
    model.init_weights()
    assert_drawn_from_standard_normal(layers)
    features, = model(torch.randn(2, 3, 32, 32))
    features.square().mean().backward()
    assert all(layer.weight.grad.isfinite().all() for layer in layers)


def test_mmdet_neck_and_heads():
    cfg = dict(conv_cfg=AWN_CFG, norm_cfg=NORM_CFG)
    with DefaultScope.overwrite_default_scope('mmdet'):
        neck = FPN([8, 16], 16, 3, **cfg)
        head = RetinaHead(2, 16, stacked_convs=2, feat_channels=16, **cfg)
        bbox_head = Shared4Conv1FCBBoxHead(
            in_channels=16, conv_out_channels=16, fc_out_channels=8,
            num_classes=2, **cfg)
    for module, count in ((neck, 4), (head, 4), (bbox_head, 4)):
        module.init_weights()
        assert len(adders(module)) == count
        assert_drawn_from_standard_normal(adders(module))
    levels = neck([torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)])
    scores, _ = head(levels)
    assert [tuple(s.shape[2:]) for s in scores] == [(8, 8), (4, 4), (2, 2)]
    assert bbox_head(torch.randn(3, 16, 7, 7))[0].shape == (3, 3)


def test_initialization_of_a_whole_detector():
    """Guard issue 2: initializers of Conv2d must not reach adders."""
    cfg = dict(conv_cfg=AWN_CFG, norm_cfg=NORM_CFG)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(
            type='mmdet.RetinaNet',
            backbone=dict(
                type='ResNet', depth=18, base_channels=8, init_cfg=[
                    dict(type='Normal', layer='Conv2d', std=.01)], **cfg),
            neck=dict(type='FPN', in_channels=[8, 16, 32, 64],
                      out_channels=16, num_outs=5, **cfg),
            bbox_head=dict(
                type='RetinaHead', num_classes=2, in_channels=16,
                stacked_convs=1, feat_channels=16, **cfg)))
        model.init_weights()
    layers = adders(model)
    assert len(layers) == 20 + 8 + 2
    for part in (model.backbone, model.neck, model.bbox_head):
        assert_drawn_from_standard_normal(adders(part))
    assert all(layer.awn.nu.eq(1).all() for layer in layers)


def test_fusion_with_batch_norm_leaves_adders_alone():
    module = ConvModule(
        4, 8, 3, conv_cfg=AWN_CFG, norm_cfg=NORM_CFG).train()
    x = torch.randn(4, 4, 8, 8)
    module(x)
    module.eval()
    expected = module(x)
    torch.testing.assert_close(fuse_conv_bn(module)(x), expected)


@pytest.mark.parametrize('weight_norm', WEIGHT_NORMS)
def test_traced_layer_is_saved(weight_norm):
    layer = AdderConv2d(3, 4, 3, bias=True, weight_norm=weight_norm)
    x, file = torch.randn(1, 3, 6, 7), io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(layer, x), file)
        file.seek(0)
        assert torch.equal(torch.jit.load(file)(x), layer(x))


@pytest.mark.parametrize('weight_norm', WEIGHT_NORMS)
def test_device_and_dtype(weight_norm):
    options = dict(bias=True, weight_norm=weight_norm)
    layer = AdderConv2d(3, 4, 3, dtype=torch.float64, **options)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    layer = AdderConv2d(3, 4, 3, device='meta', **options)
    assert {p.device.type for p in layer.parameters()} == {'meta'}
    with torch.device('meta'):
        layer = AdderConv2d(3, 4, 3, **options)
    assert {p.device.type for p in layer.parameters()} == {'meta'}
    assert_drawn_from_standard_normal([AdderConv2d(
        16, 16, 3, dtype=torch.float64, **options)])


@pytest.mark.parametrize('differentiate', [
    lambda f, w: torch.func.grad(lambda w: f(w).sum())(w),
    lambda f, w: torch.func.vjp(f, w),
    lambda f, w: torch.func.jvp(f, (w, ), (w, ))])
def test_functional_gradients_are_refused(differentiate):
    layer, x = AdderConv2d(3, 4, 3), torch.randn(1, 3, 6, 7)
    with pytest.raises(RuntimeError, match='only backward.. and'):
        differentiate(lambda weight: torch.func.functional_call(
            layer, dict(weight=weight), (x, )), layer.weight.detach())


def test_second_gradient_is_refused():
    layer, x = AdderConv2d(3, 4, 3), torch.randn(1, 3, 6, 7)
    for inputs in (x.requires_grad_(), layer.weight):
        with pytest.raises(RuntimeError, match='leave create_graph out'):
            torch.autograd.grad(
                layer(x).sum(), inputs, create_graph=True)


def test_shapes_on_the_meta_device():
    """Nothing is computed there, and there is no autocast to ask for."""
    layer = AdderConv2d(4, 6, 3, stride=2, bias=True, weight_norm='AWN')
    output = layer.to('meta')(torch.empty(2, 4, 9, 8, device='meta'))
    assert output.shape == (2, 6, 4, 3)
    assert output.device.type == 'meta'
    output.sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape
    assert layer.weight.grad.device.type == 'meta'
