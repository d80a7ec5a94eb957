"""The adder convolution as a layer for ``conv_cfg``."""
import weakref
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mmadder.config_nodes import type_name
from mmadder.errors import InputError
from mmadder.ops import adder_conv2d, center_filters

from .local_gradient_scaling import local_gradient_scaling
from .weight_norm import AWN, WS

FRACTION = 'fraction'  # name of the buffer
WEIGHT_NORMS = dict(AWN=AWN, WS=WS)


@MODELS.register_module()
class AdderConv2d(nn.Module):
    """Convolution that sums distances instead of products.

    ``conv_cfg=dict(type='AdderConv2d', weight_norm='AWN')`` puts it in place
    of nn.Conv2d wherever OpenMMLab takes a ``conv_cfg``. It is no subclass of
    it: initializers and conv-BN fusion written for a linear layer must not
    find it. Outputs are far below zero, so a normalization must follow.

    The weight goes through ``weight_norm``, its gradient through the local
    scaling on the way back to it (arXiv:1912.13200; "Towards Stable and
    Robust AdderNets", NeurIPS 2021).

    It can also be somewhere on the path from a convolution to an adder, which
    :class:`mmadder.engine.AnnealingHook` leads along in training: with t =
    ``adder_fraction``, the output is (1 - t) conv2d(x, w) + t adder(x, w).
    t is 1 unless it was set or loaded.

    Args:
        kernel_size, stride, padding, dilation: one or (h, w). Padding is
            samples of value 0, which add -abs(weight).
        groups: divides both channels.
        bias: add a trainable bias, zero at the start.
        weight_norm: 'AWN', 'WS', or their arguments, as in
            ``dict(type='AWN', nu=1.0, upsilon=0.5)``.
        eta: root mean square of the gradient that reaches the weight norm;
            None leaves the gradient as it is.
        mode, input_gradient: see :func:`mmadder.ops.adder_conv2d`.
        padding_mode: 'zeros'.
        center: take the mean over the filters (of each group) off the
            adder's output, per sample and position, before the bias. Not
            part of the paper; see :func:`mmadder.ops.adder_conv2d`.
        device, dtype: of the parameters.
    Input:
        (N, in_channels, H, W), float32 or float64; half types are computed
        in float32.
    Returns:
        (N, out_channels, H_out, W_out), as nn.Conv2d; float32 under autocast,
        or its lower precision where the output is centered.
    Raises:
        ValueError: an argument out of its range; the message names it.
    Example:
        >>> layer = AdderConv2d(3, 16, 3, stride=2, padding=1,
        ...                     weight_norm='AWN')
        >>> tuple(layer(torch.rand(2, 3, 9, 8)).shape)
        (2, 16, 5, 4)
        >>> {k: tuple(v.shape) for k, v in layer.state_dict().items()}
        {'weight': (16, 3, 3, 3), 'awn.nu': (16,), 'awn.upsilon': (16,)}
    """

    instances = weakref.WeakSet()  # all alive, for checks of the training

    # What mmcv's ConvModule reads beside the arguments.
    transposed = False
    output_padding = (0, 0)

    # Of layers pickled before these existed.
    center = False
    # What forward reads is the stage: torch.compile makes a graph for each of
    # three, where it would make one for each value of t.
    _fraction, _stage = 1., 'adder'
    center_convolution, scale_gradient = False, True  # while t < 1

    def __init__(self,
                 in_channels: int,
                 out_channels: int,
                 kernel_size: int | Sequence[int],
                 stride: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0,
                 dilation: int | Sequence[int] = 1,
                 groups: int = 1,
                 bias: bool = False,
                 weight_norm: str | dict | None = None,
                 eta: float | None = 0.2,
                 mode: str = 'auto',
                 input_gradient: str = 'hardtanh',
                 padding_mode: str = 'zeros',
                 center: bool = False,
                 device: torch.device | str | None = None,
                 dtype: torch.dtype | None = None):
        super().__init__()
        _check_channels(in_channels, out_channels, groups)
        if eta is not None and not eta > 0:
            raise ValueError(f'eta must be positive or None, got {eta}')
        if padding_mode != 'zeros':
            raise ValueError(
                f"padding_mode must be 'zeros', got {padding_mode!r}; pad "
                'the input with a layer before this one')
        if center and out_channels == groups:
            raise ValueError(
                'center needs two filters or more in a group, got '
                f'out_channels={out_channels} and groups={groups}: less their '
                'own mean, all outputs would be zero')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _checked_pair('kernel_size', kernel_size, 1)
        self.stride = _checked_pair('stride', stride, 1)
        self.padding = _checked_pair('padding', padding, 0)
        self.dilation = _checked_pair('dilation', dilation, 1)
        self.groups = groups
        self.eta = eta
        self.mode = mode
        self.input_gradient = input_gradient
        self.padding_mode = padding_mode
        self.center = center
        self.weight = nn.Parameter(torch.empty(
            out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        norm = _build_weight_norm(weight_norm, out_channels)
        self.awn = norm if isinstance(norm, AWN) else None
        self.ws = norm if isinstance(norm, WS) else None
        self.to(device, dtype)
        self.init_weights()
        self.instances.add(self)

    def __setstate__(self, state):  # of a copy or an unpickled layer
        super().__setstate__(state)
        self._stage = _stage(self._fraction)
        self.instances.add(self)

    @property
    def normalized_weight(self) -> Tensor:
        """What the input is compared with: the weight after its norm."""
        norm = self.awn or self.ws
        return self.weight if norm is None else norm(self.weight)

    @property
    def adder_fraction(self) -> float:
        """t: 0 a convolution, 1 an adder, in between their mixture."""
        return self._fraction

    def set_adder_fraction(self, fraction: float) -> None:
        """Set t, and keep it as a buffer in checkpoints from now on.

        Raises:
            ValueError: not within 0 and 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError('adder_fraction must lie between 0 (convolution) '
                             f'and 1 (adder), got {fraction}')
        self._fraction, self._stage = float(fraction), _stage(fraction)
        if FRACTION not in self._buffers:
            self.register_buffer(FRACTION, self.weight.new_empty(
                (), dtype=torch.float64))
        self._buffers[FRACTION].fill_(fraction)

    def init_weights(self) -> None:
        """Draw the weight from N(0, 1), as AdderNet; reset norm and bias."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.awn is not None:
            self.awn.init_weights()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata,
                              strict, missing_keys, unexpected_keys,
                              error_msgs):
        key = prefix + FRACTION
        if key in state_dict:
            self.set_adder_fraction(float(state_dict[key]))
        elif FRACTION in self._buffers and f'{prefix}weight' in state_dict:
            self.set_adder_fraction(1)  # the file of an adder
            state_dict = {**state_dict, key: self._buffers[FRACTION]}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys,
            unexpected_keys, error_msgs)
        # Of QuantizedAdderConv2d. MMEngine would skip all of its keys.
        if any(key.endswith('.code_scale') for key in unexpected_keys):
            raise InputError(
                'the checkpoint is of tools/quantize.py, in 8 bits, and the '
                'model is not: use tools/test.py or tools/image_demo.py, or '
                'load it into mmadder.inference.empty_quantized(model)')

    def forward(self, input: Tensor) -> Tensor:
        weight, at_end = self.normalized_weight, self._stage == 'adder'
        if self.eta is not None and (at_end or self.scale_gradient):
            weight = local_gradient_scaling(weight, self.eta)
        geometry = self.stride, self.padding, self.dilation, self.groups
        if not at_end:
            return self._mixture(input, weight, geometry)
        return adder_conv2d(
            input, weight, self.bias, *geometry, mode=self.mode,
            input_gradient=self.input_gradient, center=self.center)

    def _mixture(self, input, weight, geometry):
        """Both terms by operators of their own; at t = 0, the first alone."""
        mixed = self._stage == 'mixture'
        bias = None if mixed or self.center_convolution else self.bias
        output = F.conv2d(input, weight, bias, *geometry)
        if self.center_convolution:
            output = center_filters(output.float(), self.groups)
        if mixed:
            adder = adder_conv2d(
                input, weight, None, *geometry, mode=self.mode,
                input_gradient=self.input_gradient, center=self.center)
            output = output.to(adder.dtype).lerp(
                adder, self._buffers[FRACTION].to(adder.dtype))
        if self.bias is None or bias is not None:
            return output
        return output + self.bias.to(output.dtype).view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        return (f'{self.in_channels}, {self.out_channels}, '
                f'kernel_size={self.kernel_size}, stride={self.stride}, '
                f'padding={self.padding}, dilation={self.dilation}, '
                f'groups={self.groups}, bias={self.bias is not None}, '
                f'eta={self.eta}, mode={self.mode!r}, '
                f'input_gradient={self.input_gradient!r}, '
                f'center={self.center}'
                + ('' if self._fraction == 1
                   else f', adder_fraction={self._fraction:.3g}'))


def _stage(fraction):
    if fraction == 1:
        return 'adder'
    return 'mixture' if fraction else 'convolution'


def _check_channels(in_channels, out_channels, groups):
    sizes = dict(groups=groups, in_channels=in_channels,
                 out_channels=out_channels)
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f'{name} must be at least 1, got {size}')
        if size % groups:
            raise ValueError(
                f'groups must divide {name}, got {groups} and {size}')


def _checked_pair(name, value, least):
    """Return (h, w) of an argument that may be one number."""
    pair = tuple(_pair(value))
    if len(pair) != 2 or not all(
            isinstance(size, int) and size >= least for size in pair):
        raise ValueError(
            f'{name} must be an integer or a pair (h, w) of integers of at '
            f'least {least}, got {value!r}')
    return pair


def _build_weight_norm(cfg, out_channels):
    if cfg is None:
        return None
    arguments = dict(cfg) if isinstance(cfg, dict) else dict(type=cfg)
    kind = arguments.pop('type', None)
    if isinstance(kind, str):  # dotted, where a config was written to a file
        kind = WEIGHT_NORMS.get(type_name(kind), kind)
    if kind not in WEIGHT_NORMS.values():
        raise InputError(
            f'weight_norm must be None, one of {tuple(WEIGHT_NORMS)} or a '
            f"dict with such a 'type', got {cfg!r}")
    return kind(out_channels, **arguments)
