"""From convolution to adder: the layer's mixture and what refuses it."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmadder.errors import InputError
from mmadder.layers import (
    AdderConv2d,
    adder_fraction,
    find_adders,
    require_adders,
    set_adder_fraction,
)
from mmadder.ops import reference

LAYER = dict(in_channels=4, out_channels=6, kernel_size=(3, 2),
             stride=(2, 1), padding=(1, 0), groups=2)


def layer_at(fraction, **changes):
    torch.manual_seed(0)
    layer = AdderConv2d(**{**LAYER, 'weight_norm': 'AWN', 'center': True,
                           **changes})
    layer.set_adder_fraction(fraction)
    return layer


def expected_terms(layer, x):
    """(convolution, centered adder) in float64."""
    w = layer.normalized_weight.detach().double()
    args = layer.stride, layer.padding, layer.dilation, layer.groups
    return (F.conv2d(x.double(), w, None, *args),
            reference.adder_conv2d(x.double(), w, *args, center=layer.center))


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('fraction', [0, 0.25, 1])
def test_mixture(fraction, center):
    x = torch.randn(2, 4, 7, 6)
    layer = layer_at(fraction, center=center, bias=True)
    nn.init.normal_(layer.bias)
    conv, adder = expected_terms(layer, x)
    expected = ((1 - fraction) * conv + fraction * adder
                + layer.bias.double().view(1, -1, 1, 1))
    torch.testing.assert_close(layer(x), expected.float(), rtol=1e-5,
                               atol=1e-4)


def test_the_library_convolves_alone_at_zero():
    layer = layer_at(0, bias=True)
    x = torch.randn(2, 4, 7, 6)
    expected = F.conv2d(x, layer.normalized_weight, layer.bias, layer.stride,
                        layer.padding, groups=2)
    assert torch.equal(layer(x), expected)


def test_convolution_centered_on_request():
    layer = layer_at(0)
    layer.center_convolution = True
    x = torch.randn(2, 4, 7, 6)
    conv, _ = expected_terms(layer, x)
    filters = conv.unflatten(1, (2, 3))
    expected = (filters - filters.mean(2, keepdim=True)).flatten(1, 2)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5,
                               rtol=1e-5)


@pytest.mark.parametrize('scale_gradient', [False, True])
def test_gradient_of_a_mixture(scale_gradient):
    layer, x = layer_at(0.25, weight_norm=None), torch.randn(2, 4, 7, 6)
    layer.scale_gradient = scale_gradient
    g = torch.randn(layer(x).shape)
    layer(x).backward(g)
    w = layer.weight.detach().double().requires_grad_()
    args = layer.stride, layer.padding, layer.dilation, layer.groups
    conv, = torch.autograd.grad(
        F.conv2d(x.double(), w, None, *args), w, g.double())
    _, adder = reference.adder_conv2d_backward(
        g.double(), x.double(), w.detach(), *args, center=True)
    expected = 0.75 * conv + 0.25 * adder
    if scale_gradient:
        expected *= layer.eta / expected.square().mean().sqrt()
    torch.testing.assert_close(layer.weight.grad.double(), expected,
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('center, dtype', [
    (False, torch.float32), (True, torch.bfloat16)])
def test_autocast_mixes_in_the_type_of_the_adder(center, dtype):
    layer, x = layer_at(0.5, center=center), torch.randn(2, 4, 7, 6)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.1)


# ------------------------------------------------------------ checkpoints --


def test_fraction_goes_with_the_checkpoint():
    state = layer_at(0.25).state_dict()
    assert state['fraction'] == 0.25
    plain = AdderConv2d(**LAYER, weight_norm='AWN', center=True)
    plain.load_state_dict(state)
    assert plain.adder_fraction == 0.25
    assert copy.deepcopy(plain).adder_fraction == 0.25
    x = torch.randn(1, 4, 7, 6)
    assert torch.equal(plain(x), layer_at(0.25)(x))


def test_a_file_without_it_is_an_adder():
    layer = layer_at(0)
    state = AdderConv2d(**LAYER, weight_norm='AWN').state_dict()
    assert 'fraction' not in state
    layer.load_state_dict(state)  # strict
    assert layer.adder_fraction == 1
    assert layer.state_dict()['fraction'] == 1


def test_loading_other_layers_keeps_it():
    model = nn.Sequential(layer_at(0.25), nn.BatchNorm2d(6))
    state = {key: value for key, value in model.state_dict().items()
             if key.startswith('1.')}
    model.load_state_dict(state, strict=False)
    assert model[0].adder_fraction == 0.25


def test_it_survives_a_change_of_dtype_and_device():
    layer = layer_at(0.25).double()
    assert layer.adder_fraction == 0.25
    assert layer.state_dict()['fraction'] == 0.25


# ----------------------------------------------------------------- models --


def test_models():
    model = nn.Sequential(layer_at(1), nn.ReLU(), layer_at(0.5))
    assert find_adders(model) == {'0': model[0], '2': model[2]}
    assert adder_fraction(model) == 0.5
    with pytest.raises(InputError, match='fuse_adder_bn: the layers of this '
                       r'model are not adders yet \(adder_fraction 0.5'):
        require_adders(model, 'fuse_adder_bn')
    set_adder_fraction(model, 1)
    require_adders(model, 'fuse_adder_bn')
    assert adder_fraction(nn.ReLU()) == 1


@pytest.mark.parametrize('fraction', [-0.1, 1.5, float('nan')])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match='between 0 .*and 1'):
        layer_at(fraction)


def test_center_with_one_filter_in_a_group():
    with pytest.raises(ValueError, match='out_channels=4 and groups=4'):
        AdderConv2d(4, 4, 3, groups=4, center=True)


def test_repr_tells():
    assert 'center=True, adder_fraction=0.25' in repr(layer_at(0.25))
    assert 'adder_fraction' not in repr(layer_at(1))
