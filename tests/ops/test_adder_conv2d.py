"""The operators against the reference, torch's own checks and bad input."""
import sys

import pytest
import torch
from geometries import GEOMETRIES, Geometry

from mmadder.ops import adder_conv2d, reference

DTYPES = [torch.float32, torch.float64]


def relative_error(actual, expected, scale=None):
    """Largest error in units of `scale`, by default the largest value."""
    if expected.numel() == 0:
        return 0.
    scale = expected.abs().max() if scale is None else scale
    return ((actual.double() - expected).abs().max() / (scale + 1e-30)).item()


def tolerance(dtype, geometry):
    """Rounding of a sum: machine epsilon times root of its length."""
    terms = geometry.in_channels * geometry.kernel[0] * geometry.kernel[1]
    return 4 * torch.finfo(dtype).eps * max(terms, 4)**.5


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('input_gradient', ['hardtanh', 'sign'])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_value_and_gradients(geometry, input_gradient, dtype):
    x, w, g = geometry.tensors(dtype)
    x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(x, w, None, *geometry.arguments,
                     input_gradient=input_gradient)
    grad_x, grad_w = torch.autograd.grad(y, (x, w), g)

    x64, w64, g64 = x.detach().double(), w.detach().double(), g.double()
    tol = tolerance(dtype, geometry)
    expected = reference.adder_conv2d(x64, w64, *geometry.arguments)
    assert y.dtype == dtype and y.is_contiguous()
    assert relative_error(y, expected) < tol
    expected_x, expected_w = reference.adder_conv2d_backward(
        g64, x64, w64, *geometry.arguments, input_gradient)
    magnitude = g64.abs().sum(1).max()
    assert relative_error(grad_x, expected_x, magnitude) < tol
    magnitude = 4 * g64.abs().sum((0, 2, 3)).max()
    assert relative_error(grad_w, expected_w, magnitude) < tol


@pytest.mark.parametrize('mode', ['auto', 'exact', 'max'])
def test_zero_input_scores_minus_the_filter_everywhere(mode):
    """Padding is a real sample, so borders are no exception."""
    w = torch.randn(5, 3, 3, 3)
    y = adder_conv2d(torch.zeros(2, 3, 6, 7), w, padding=1, mode=mode)
    torch.testing.assert_close(
        y, -w.abs().sum((1, 2, 3)).view(1, -1, 1, 1).expand_as(y))


def test_bias_is_added_and_learns():
    x, w, g = GEOMETRIES[2].tensors()
    bias = torch.randn(16, requires_grad=True)
    y = adder_conv2d(x, w, bias, padding=1)
    plain = adder_conv2d(x, w, padding=1)
    torch.testing.assert_close(y, plain + bias.view(1, -1, 1, 1))
    y.backward(g)
    torch.testing.assert_close(bias.grad, g.sum((0, 2, 3)))


def test_pairs_may_be_given_as_one_number():
    x, w, _ = Geometry(1, 3, (9, 8), 4, (3, 3)).tensors()
    torch.testing.assert_close(
        adder_conv2d(x, w, None, 2, 1, 1),
        adder_conv2d(x, w, None, (2, 2), (1, 1), (1, 1)))


@pytest.mark.parametrize('layout', [
    'channels_last', 'sliced', 'transposed', 'expanded', 'offset'])
def test_any_memory_layout(layout):
    geometry = Geometry(2, 18, (8, 8), 20, (3, 3), padding=(1, 1))
    x, w, g = geometry.tensors()
    if layout == 'channels_last':
        x, w, g = (t.to(memory_format=torch.channels_last)
                   for t in (x, w, g))
    elif layout == 'sliced':
        x = torch.randn(2, 36, 8, 16)[:, ::2, :, ::2]
    elif layout == 'transposed':
        x, w, g = (t.transpose(2, 3) for t in (x, w, g))
    elif layout == 'expanded':
        x, g = x[:1, :1].expand_as(x), g[:, :1].expand_as(g)
    else:  # not aligned to a vector
        x = torch.randn(x.numel() + 1)[1:].view_as(x)
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = adder_conv2d(x, w, padding=1)
    grads = torch.autograd.grad(y, (x, w), g)
    torch.testing.assert_close(
        y, reference.adder_conv2d(x, w, padding=1), rtol=1e-5, atol=1e-4)
    expected = reference.adder_conv2d_backward(g, x, w, padding=1)
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('size, kernel', [
    ((8, 1), (3, 1)), ((1, 8), (1, 3)), ((8, 1), (1, 1))])
def test_axes_of_size_one_may_have_any_stride(size, kernel):
    """Contiguous for PyTorch, which the kernels read as channels_last."""
    padding = tuple(extent // 2 for extent in kernel)
    geometry = Geometry(2, 20, size, 7, kernel, padding=padding)
    x, w, g = geometry.tensors()
    odd_x, odd_g = (
        t.transpose(2, 3).clone(memory_format=torch.contiguous_format
                                ).transpose(2, 3) for t in (x, g))
    assert odd_x.is_contiguous() and odd_x.stride() != x.stride()
    expected = reference.adder_conv2d(x.double(), w.double(),
                                      *geometry.arguments)
    for mode in 'auto', 'exact', 'max':
        found = adder_conv2d(odd_x, w, None, *geometry.arguments, mode=mode)
        assert relative_error(found, expected) < 1e-5
    grad = torch.ops.mmadder.adder_conv2d_input_grad
    arguments = *geometry.arguments, 'hardtanh'
    assert torch.equal(grad(odd_g, odd_x, w, *arguments),
                       grad(g, x, w, *arguments))


def test_empty_batch():
    x = torch.zeros(0, 4, 8, 8, requires_grad=True)
    w = torch.randn(6, 4, 3, 3, requires_grad=True)
    y = adder_conv2d(x, w, padding=1)
    assert y.shape == (0, 6, 8, 8)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert w.grad.abs().sum() == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    geometry = Geometry(1, 32, (6, 6), 8, (3, 3), padding=(1, 1))
    x, w, g = geometry.tensors(dtype)
    x.requires_grad_(), w.requires_grad_()
    y = adder_conv2d(x, w, padding=1)
    exact = adder_conv2d(x.float(), w.float(), padding=1)
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact.to(dtype), rtol=0, atol=0)
    y.backward(g)
    assert x.grad.dtype == w.grad.dtype == dtype


def test_autocast_returns_float32():
    """Of plain adders; what it does to centered ones is in test_center."""
    x, w, g = GEOMETRIES[2].tensors()
    w.requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = adder_conv2d(x.bfloat16(), w, padding=1)
    assert y.dtype == torch.float32
    torch.testing.assert_close(
        y, adder_conv2d(x.bfloat16().float(), w, padding=1))
    y.backward(g)
    assert w.grad.dtype == torch.float32


def test_nan_and_infinity():
    """NaN reaches all that see it, infinity scores minus infinity."""
    w = torch.randn(3, 2, 1, 1)
    x = torch.zeros(1, 2, 1, 4)
    x[0, 0, 0, 1], x[0, 1, 0, 2] = float('nan'), float('inf')
    y = adder_conv2d(x, w)
    assert y[..., 1].isnan().all()
    assert (y[..., 2] == -float('inf')).all()
    assert y[..., [0, 3]].isfinite().all()
    for form in ('hardtanh', 'sign'):
        grad = torch.ops.mmadder.adder_conv2d_input_grad(
            torch.ones(1, 3, 1, 4), x, w, (1, 1), (0, 0), (1, 1), 1, form)
        assert grad[0, 0, 0, 1].isnan()
        assert grad[0, 1, 0, 2] == -3
        assert grad.isnan().sum() == 1


@pytest.mark.parametrize('batch', [1, 6])
def test_threads_do_not_change_a_bit(batch):
    geometry = Geometry(batch, 24, (30, 31), 40, (3, 3), (2, 1), (1, 1))
    x, w, g = geometry.tensors()
    results = []
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            args = geometry.arguments
            results.append((
                adder_conv2d(x, w, None, *args),
                torch.ops.mmadder.adder_conv2d_input_grad(
                    g, x, w, *args, 'hardtanh')))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for a, b in zip(results[0], result):
            assert torch.equal(a, b)


@pytest.mark.parametrize('geometry', [GEOMETRIES[1], GEOMETRIES[8]])
@pytest.mark.parametrize('dtype', DTYPES)
def test_opcheck(geometry, dtype):
    x, w, g = geometry.tensors(dtype)
    args = geometry.arguments
    ops = torch.ops.mmadder
    torch.library.opcheck(
        ops.adder_conv2d,
        (x.clone().requires_grad_(), w.clone().requires_grad_(), *args,
         'auto', 'hardtanh'))
    torch.library.opcheck(
        ops.adder_conv2d_input_grad, (g, x, w, *args, 'sign'))
    torch.library.opcheck(ops.adder_conv2d_weight_grad, (g, x, w, *args))


def test_gradient_is_a_surrogate():
    """gradcheck must fail: dY/dW is X - W, not a sign."""
    x, w, _ = GEOMETRIES[1].tensors(torch.float64)
    x.requires_grad_(), w.requires_grad_()
    with pytest.raises(RuntimeError, match='Jacobian mismatch'):
        torch.autograd.gradcheck(
            lambda x, w: adder_conv2d(
                x, w, None, *GEOMETRIES[1].arguments), (x, w))


X, W = torch.zeros(1, 4, 5, 5), torch.zeros(6, 4, 3, 3)


ERRORS = [
    ((X[0], W), ValueError, r'input must be \(N, C, H, W\), got \[4, 5, 5\]'),
    ((X, W[0]), ValueError, r'weight must be .*got \[4, 3, 3\]'),
    ((X[:, :3], W), ValueError, r'expects 4 input channels.*has 3'),
    ((X, W[:, :2], None, 1, 0, 1, 3), ValueError, 'groups must divide'),
    ((X, W[:5, :2], None, 1, 0, 1, 2), ValueError, 'groups must divide'),
    ((X, W, None, 0), ValueError, 'stride must be positive'),
    ((X, W, None, 1, -1), ValueError, 'padding must not be negative'),
    ((X, W, None, 1, 0, 0), ValueError, 'dilation must be positive'),
    ((X, W, None, 1, 0, 3), ValueError, 'output would be empty: kernel'),
    ((X, W, None, (1, 2, 3)), ValueError, 'pairs'),
    ((X, W, None, 2**40), ValueError, 'too large'),
    ((X, W[:, :, :0]), ValueError, 'weight must not be empty'),
    ((X, W, torch.zeros(5)), ValueError, r'bias must have shape \(6,\)'),
    ((X, W.double()), RuntimeError, 'weight is torch.float64, input torch.f'),
    ((X, W, torch.zeros(6).double()), RuntimeError, 'bias is torch.float64'),
    ((X, W.to('meta')), RuntimeError, 'weight is on meta, input on cpu'),
    ((X.int(), W.int()), RuntimeError, 'floating-point tensors expected'),
]


@pytest.mark.parametrize('arguments, error, message', ERRORS)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        adder_conv2d(*arguments)


@pytest.mark.parametrize('arguments, message', [
    (arguments, message) for arguments, error, message in ERRORS
    if error is ValueError])
def test_meta_tensors_are_refused_alike(arguments, message):
    arguments = [value.to('meta') if isinstance(value, torch.Tensor)
                 else value for value in arguments]
    with pytest.raises(ValueError, match=message):
        adder_conv2d(*arguments)


def test_meta_tensors_cannot_be_centered_alone():
    with pytest.raises(ValueError, match='center needs two filters or more'):
        adder_conv2d(X.to('meta'), W[:1].to('meta'), center=True)


@pytest.mark.parametrize('option', ['mode', 'input_gradient'])
def test_unknown_option(option):
    with pytest.raises(ValueError, match=f'{option} must be one of'):
        adder_conv2d(X, W, **{option: 'fast'})


def test_gradient_operators_check_the_shape_of_grad_output():
    wrong = torch.zeros(1, 6, 4, 3)
    args = (X, W, (1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(ValueError, match=r'grad_output has shape.*expected'):
        torch.ops.mmadder.adder_conv2d_input_grad(wrong, *args, 'sign')
    with pytest.raises(ValueError, match=r'grad_output has shape.*expected'):
        torch.ops.mmadder.adder_conv2d_weight_grad(wrong, *args)


def test_device_without_kernel_is_said(monkeypatch):
    module = sys.modules[adder_conv2d.__module__]  # not the function
    monkeypatch.setattr(module, 'DEVICES', {'cuda'})
    with pytest.raises(
            RuntimeError, match='input is on cpu, and mmadder was built with '
            'kernels for cpu(, cuda)? only.*MMADDER_CUDA=1'):
        adder_conv2d(X, W)
