"""8-bit models stay close to their float originals."""
import copy
import pickle

import pytest
import torch
from far_device import FAR, FarDevice, FarTensor, move, near
from small_classifier import make_batches, make_classifier
from torch import nn

from mmadder.errors import InputError
from mmadder.inference import (
    FusedAdderConv2d,
    QuantizedAdderConv2d,
    fuse_adder_bn,
    quantize,
)
from mmadder.layers import AdderConv2d


class OneLayer(nn.Module):
    """An adder with norm, and the test_step that calibration calls."""

    def __init__(self, bounds, center=False):
        super().__init__()
        self.layer = nn.Sequential(
            AdderConv2d(6, 5, 3, padding=1, center=center),
            nn.BatchNorm2d(5))
        self.bounds = bounds

    def forward(self, x):
        return self.layer(x)

    test_step = forward

    def batch(self, seed):
        generator = torch.Generator().manual_seed(seed)
        low, high = self.bounds
        return torch.rand(2, 6, 8, 8, generator=generator) * (
            high - low) + low


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('widest', [3, 30])
@pytest.mark.parametrize('bounds', [(0, 4), (-3, 3), (5, 9)])
def test_error_of_a_layer_is_within_its_bound(bounds, widest, center):
    """Each term is off by a step at most: half of x's and half of w's.

    However far the weights are, for the inputs alone set the step.
    """
    torch.manual_seed(0)
    model = OneLayer(bounds, center).eval()
    with torch.no_grad():
        model.layer[0].weight.mul_(widest / 3).clamp_(-widest, widest)
    quantized = quantize(model, [model.batch(0), model.batch(1)],
                         progress=False)
    layer, = (m for m in quantized.modules()
              if isinstance(m, QuantizedAdderConv2d))
    x = model.batch(1)
    with torch.no_grad():
        error = (quantized(x) - model(x)).abs().max()
    scale = layer.code_scale.item()
    span = max(bounds[1], 0) - min(bounds[0], 0)
    assert 0.8 * span / 255 < scale < 1.001 * span / 255
    assert 0 < error <= 54 * scale
    assert error < 0.25 * 54 * scale  # typically, errors cancel


@pytest.mark.parametrize('center', [False, True])
def test_weights_beyond_the_range_lose_nothing(center):
    """Inputs that are codes, weights that are far: no error but float32's."""
    torch.manual_seed(0)
    model = OneLayer((0, 4), center).eval()
    layer = model.layer[0]
    with torch.no_grad():
        layer.weight.copy_(torch.where(
            torch.rand(layer.weight.shape) < .5, -7.3, 1000.1)
            * torch.rand(layer.weight.shape).add(1))
    fused = fuse_adder_bn(model).layer[0]
    quantized = QuantizedAdderConv2d(fused, 0., 255 / 64)
    x = torch.randint(0, 256, (2, 6, 8, 8)) / 64
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
        error = (quantized(x) - expected).abs().max()
    # Of sums up to 54 * 2000.
    assert error < 54 * 2000 * 1e-6


def test_classifier_keeps_its_features_and_predictions():
    model, batches = make_classifier(), make_batches()
    quantized = quantize(model, batches, progress=False)
    x = torch.stack(batches[0]['inputs']).float() / 255
    with torch.no_grad():
        expected = model(x, mode='tensor')[0].flatten()
        actual = quantized(x, mode='tensor')[0].flatten()
    correlation = torch.corrcoef(torch.stack([expected, actual]))[0, 1]
    assert correlation > 0.98
    assert not any(isinstance(m, AdderConv2d) for m in quantized.modules())
    assert all(isinstance(m, QuantizedAdderConv2d)
               for m in quantized.modules() if isinstance(m, FusedAdderConv2d))


def test_calibration_ends_after_the_given_batches():
    seen = []

    def loader():
        for batch in make_batches(5, 1):
            seen.append(batch)
            yield batch

    quantize(make_classifier(), loader(), batches=2, progress=False)
    assert len(seen) == 2


@pytest.mark.parametrize('center', [False, True])
def test_other_devices_compute_the_same(center):
    layer = OneLayer((-1, 2), center).eval()
    fused = fuse_adder_bn(layer).layer[0]
    quantized = QuantizedAdderConv2d(fused, -3., 3.)
    x = layer.batch(0)
    with torch.no_grad():
        torch.testing.assert_close(quantized(x), quantized._floats(x, None),
                                   rtol=1e-5, atol=1e-4)


def test_errors():
    model = make_classifier()
    with pytest.raises(InputError, match='gave no batch'):
        quantize(model, [], progress=False)
    with pytest.raises(InputError, match='in training mode'):
        quantize(model.train(), make_batches(), progress=False)
    layer = OneLayer((0, 1)).eval()
    with pytest.raises(InputError, match='input of layer.0 has values that '
                       'are not finite'):
        quantize(layer, [torch.full((1, 6, 8, 8), float('nan'))],
                 progress=False)


class TwoLayers(OneLayer):
    """And a layer that never runs, whose range is that of its weight."""

    def __init__(self, bounds):
        super().__init__(bounds)
        self.idle = nn.Sequential(AdderConv2d(5, 5, 1), nn.BatchNorm2d(5))


def test_quantizes_on_another_device():
    """A histogram on the CPU must not meet one on a GPU."""
    torch.manual_seed(0)
    model = TwoLayers((-1, 2)).eval()
    # The second has a wider range, so that the histogram grows.
    batches = [model.batch(0), 3 * model.batch(1)]
    expected = quantize(model, batches, progress=False)
    with FarDevice(), torch.no_grad():
        actual = quantize(move(copy.deepcopy(model)),
                          [FarTensor(batch) for batch in batches],
                          progress=False)
        output = actual(FarTensor(batches[0]))
    for name, value in actual.state_dict().items():
        assert isinstance(value, FarTensor), name
        torch.testing.assert_close(near(value), expected.state_dict()[name],
                                   msg=name)
    with torch.no_grad():
        torch.testing.assert_close(near(output), expected(batches[0]))


def test_batch_without_samples():
    """Such as that of a detector's head without proposals."""
    torch.manual_seed(0)
    model = OneLayer((-1, 2)).eval()
    batches = [model.batch(0)[:0], model.batch(0), model.batch(1)[:0]]
    actual = quantize(model, batches, progress=False).state_dict()
    expected = quantize(model, batches[1:2], progress=False).state_dict()
    assert all(torch.equal(value, expected[key])
               for key, value in actual.items())


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16, torch.double])
@pytest.mark.parametrize('device', ['cpu', FAR])
def test_output_has_the_dtype_of_the_input(dtype, device):
    model = OneLayer((-1, 2)).eval()
    quantized = quantize(model, [model.batch(0)], progress=False)
    x = model.batch(0)
    with torch.no_grad():
        expected = quantized(x)
        layer, = quantized.layer[:1]
        residual = torch.randn_like(expected).to(dtype)
        with_residual = layer(x, residual.float())
        x = x.to(dtype)
        if device == FAR:
            move(quantized)
            x, residual = FarTensor(x), FarTensor(residual)
        outputs = quantized(x), layer(x, residual), quantized.to(dtype)(x)
    for output, truth in zip(
            outputs, (expected, with_residual, expected)):
        assert output.dtype == dtype
        # Rounding moves an input by a code at most where it lies between two.
        error = (near(output).float() - truth).abs().max()
        assert error < 0.05 * truth.abs().max()


def test_codes_follow_the_checkpoint():
    """Scale and zero point are numbers too, and must not be left behind."""
    x = OneLayer((-1, 2)).batch(0)
    layers = []
    for bounds in ((-3., 3.), (-1., 2.)):
        torch.manual_seed(0)
        fused = fuse_adder_bn(OneLayer((-1, 2)).eval()).layer[0]
        layers.append(QuantizedAdderConv2d(fused, *bounds))
    layer, other = layers
    copies = [
        copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)),
        copy.deepcopy(layer).to('meta').to_empty(device='cpu'),
        copy.deepcopy(other), copy.deepcopy(other)]
    for loaded in copies[2:]:
        loaded.load_state_dict(layer.state_dict(),
                               assign=loaded is copies[-1])
    with torch.no_grad():
        expected = layer(x)
        assert not torch.equal(other(x), expected)
        for loaded in copies:
            assert torch.equal(loaded(x), expected)
            assert torch.equal(loaded.to_codes(x), layer.to_codes(x))


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('warm', [False, True])
@pytest.mark.parametrize('bits', [32, 8])
def test_export(bits, warm, strict):
    """A graph holds no weights in the order of one processor's kernels."""
    model = make_classifier()
    inference = (fuse_adder_bn(model) if bits == 32 else
                 quantize(model, make_batches(1), progress=False))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        if warm:
            inference(x)
        program = torch.export.export(inference, (x, ), strict=strict)
        expected = inference(x)
        actual = program.module()(x)
    torch.testing.assert_close(actual, expected)
    assert not [name for name in program.constants if 'packed' in name]
    assert not [name for name in program.state_dict if 'packed' in name]
