"""The adder convolution: public function, fake kernels and autograd."""
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn.modules.utils import _pair

from .extension import is_built, kernel_devices, require_extension

MODES = ('auto', 'exact', 'max')
INPUT_GRADIENTS = ('hardtanh', 'sign')
KERNEL_DEVICES = kernel_devices()
DEVICES = KERNEL_DEVICES | {'meta'}  # the fake kernel's
Extent = int | tuple[int, int]  # one for both axes, or (h, w)


def adder_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None,
                 stride: Extent = 1, padding: Extent = 0,
                 dilation: Extent = 1, groups: int = 1, *, mode: str = 'auto',
                 input_gradient: str = 'hardtanh',
                 center: bool = False) -> Tensor:
    r"""Score each window by its negative l1 distance to each filter.

    .. math:: Y_{n,o,h,w} = b_o - \sum_{c,i,j}
        |X_{n,c,\,hs-p+id,\,ws-p+jd} - W_{o,c,i,j}|

    Eq. 1 of "Towards Stable and Robust AdderNets" (NeurIPS 2021); AdderNet,
    arXiv:1912.13200. Backward is AdderNet's surrogate, not the derivative:
    dY/dW = X - W, dY/dX = clip(W - X, -1, 1), both raw: the adaptive local
    learning rate is a layer's business. There is no second gradient, none of
    torch.func, and no forward mode. Padding is a real sample: each
    padded zero adds -\|W\|.

    Args:
        input (Tensor): (N, C_in, H, W), float32, float64, float16 or
            bfloat16. Half types are computed in float32.
        weight (Tensor): (C_out, C_in / groups, K_h, K_w), input's dtype and
            device.
        bias (Tensor | None): (C_out,).
        stride, padding, dilation (int | tuple): one or (h, w), in pixels.
        groups (int): divides both C_in and C_out.
        mode (str): arithmetic of the float32 kernel. 'exact' sums \|x - w\|.
            'max' sums max(x, w) and takes sum x and sum w off, which is
            faster. Its relative error is about 1.6e-7 (sum \|x - c\| +
            sum \|w - c\|) / sum \|x - w\|, c being an input channel's mean
            weight: both are shifted by it, so that offsets in common do no
            harm. 'auto' takes 'max', unless C_in / groups * K_h * K_w is
            below 16. If an output is not finite or sum \|w - c\| exceeds 8
            sum \|x - w\| there, it computes the call again as 'exact' and
            warns once; the error stays below 3e-6. Neither choice depends on
            the number of threads. Infinity gives -inf in 'exact' and 'auto',
            but may give NaN in 'max'. On CUDA 'auto' is the exact form and
            'max' an error.
        input_gradient (str): 'hardtanh' or 'sign' of W - X for dY/dX;
            AdderDet (arXiv:2112.13608) trains with the latter.
        center (bool): take off the mean over the filters of a group, per
            sample and position, before the bias: Y - mean_o Y. It is the
            part of the distances that no filter differs in. Its gradients
            are those of the centered output. Rounding stays relative to
            the distances that are centered: with mode 'auto' the error is
            below 4e-6 (sum \|x - w\| + its mean over the filters), and a
            half type's result is centered before it is rounded. Not part of
            the paper.

    Returns:
        Tensor: (N, C_out, H_out, W_out) of input's dtype; under autocast
        centered outputs have its lower precision, as a convolution's, others
        float32. H_out = (H + 2p - d(K_h - 1) - 1)//s + 1. No value exceeds
        its bias, if it is not centered. N = 0 gives an empty tensor.

    Raises:
        ValueError: wrong rank, channels, groups, mode or an empty output, or
            center with one filter in a group; the message names the argument
            and the shapes.
        RuntimeError: mixed dtypes or devices, kernels not built, or a
            gradient that is not there.

    Example:
        >>> x, w = torch.zeros(1, 3, 8, 8), torch.ones(16, 3, 3, 3)
        >>> adder_conv2d(x, w, padding=1)[0, 0, 4, 4]
        tensor(-27.)
    """
    require_extension()
    _check_device(input)
    _check(input, weight, bias, mode, input_gradient)
    require_plain_gradient(input, weight)
    output = torch.ops.mmadder.adder_conv2d(
        input, weight, _pair(stride), _pair(padding), _pair(dilation), groups,
        mode, input_gradient, center)
    if bias is None:
        return output
    return output + bias.to(output.dtype).view(1, -1, 1, 1)


def require_plain_gradient(*tensors: Tensor) -> None:
    """Refuse gradients that would be zeros, or an error of PyTorch's inside.

    Raises:
        RuntimeError: a tensor is one of torch.func's or of forward mode.
    """
    if not torch.compiler.is_compiling() and any(
            torch._C._functorch.is_gradtrackingtensor(tensor)
            or unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise RuntimeError(
            'adder_conv2d: its gradient is a surrogate that only backward() '
            'and torch.autograd.grad() give; torch.func.grad, vjp, jvp and '
            'forward mode do not')


def _check_device(input: Tensor) -> None:
    if input.device.type not in DEVICES:
        raise RuntimeError(
            f'adder_conv2d: input is on {input.device}, and mmadder was built '
            f'with kernels for {", ".join(sorted(KERNEL_DEVICES))} only; move '
            'the model and its input there, or build for a GPU: '
            'MMADDER_CUDA=1 pip install -e . --no-build-isolation')


def _check(input: Tensor, weight: Tensor, bias: Tensor | None, mode: str,
           input_gradient: str) -> None:
    """What the operators cannot say in the user's words."""
    for name, value, choices in (('mode', mode, MODES),
                                 ('input_gradient', input_gradient,
                                  INPUT_GRADIENTS)):
        if value not in choices:
            raise ValueError(
                f'adder_conv2d: {name} must be one of {choices}, got '
                f'{value!r}.')
    autocast = (input.device.type != 'meta'  # which is no type of autocast
                and torch.is_autocast_enabled(input.device.type))
    for name, tensor in (('weight', weight), ('bias', bias)):
        if tensor is None:
            continue
        if tensor.device != input.device:
            raise RuntimeError(
                f'adder_conv2d: {name} is on {tensor.device}, input on '
                f'{input.device}; move both to one device.')
        if tensor.dtype != input.dtype and not autocast:
            raise RuntimeError(
                f'adder_conv2d: {name} is {tensor.dtype}, input '
                f'{input.dtype}; convert one, or use autocast.')
    if torch.jit.is_tracing():  # where sizes are tensors
        return
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f'adder_conv2d: bias must have shape ({len(weight)},) for weight '
            f'{tuple(weight.shape)}, got {tuple(bias.shape)}.')


def output_size(
        input: Sequence[int], weight: Sequence[int], stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int, int, int]:
    """(N, C_out, H_out, W_out) of two sizes; the geometry in pairs (h, w)."""
    size = [(extent + 2 * p - d * (kernel - 1) - 1) // s + 1
            for extent, kernel, s, p, d in zip(
                input[2:], weight[2:], stride, padding, dilation)]
    return (input[0], weight[0], *size)


def checked_output_size(
        input: Tensor, weight: Tensor, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], groups: int,
        center: bool) -> Sequence[int]:
    """:func:`output_size` of tensors, refused where the operators would.

    In a graph for many sizes they are symbols, which are not checked.
    """
    arguments = input.shape, weight.shape, stride, padding, dilation
    if any(isinstance(size, torch.SymInt)
           for size in (*input.shape, *weight.shape)):
        return output_size(*arguments)
    return torch.ops.mmadder.adder_conv2d_output_size(
        *arguments, groups, center)


def _fake_forward(input, weight, stride, padding, dilation, groups, mode,
                  input_gradient, center=False):
    return input.new_empty(checked_output_size(
        input, weight, stride, padding, dilation, groups, center))


def _fake_input_grad(grad_output, input, weight, stride, padding, dilation,
                     groups, input_gradient):
    return input.new_empty(input.shape)


def _fake_weight_grad(grad_output, input, weight, stride, padding, dilation,
                      groups):
    return weight.new_empty(weight.shape)


def _setup_context(ctx, inputs, output):
    input, weight, *geometry, _, ctx.input_gradient, ctx.center = inputs
    ctx.save_for_backward(input, weight)
    ctx.geometry = geometry


def _backward(ctx, grad_output):
    if torch.is_grad_enabled():
        raise RuntimeError(
            'adder_conv2d: its gradient is a surrogate, and has none of its '
            'own: leave create_graph out')
    input, weight = ctx.saved_tensors
    if ctx.center:
        grad_output = center_filters(grad_output, ctx.geometry[-1])
    grad_input = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_input = torch.ops.mmadder.adder_conv2d_input_grad(
            grad_output, input, weight, *ctx.geometry, ctx.input_gradient)
    if ctx.needs_input_grad[1]:
        grad_weight = torch.ops.mmadder.adder_conv2d_weight_grad(
            grad_output, input, weight, *ctx.geometry)
    return grad_input, grad_weight, *[None] * 7


def center_filters(output: Tensor, groups: int = 1) -> Tensor:
    """Take the mean over each group's filters off (N, C_out, H, W)."""
    filters = output.unflatten(1, (groups, -1))
    return (filters - filters.mean(2, keepdim=True)).flatten(1, 2)


if is_built():
    torch.library.register_fake('mmadder::adder_conv2d', _fake_forward)
    torch.library.register_fake(
        'mmadder::adder_conv2d_input_grad', _fake_input_grad)
    torch.library.register_fake(
        'mmadder::adder_conv2d_weight_grad', _fake_weight_grad)
    torch.library.register_autograd(
        'mmadder::adder_conv2d', _backward, setup_context=_setup_context)
