"""Feature pyramid of adder layers."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from mmengine.registry import MODELS
from torch import Tensor

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d


@MODELS.register_module()
class AdderFPN(FPN):
    """FPN whose lateral and output convolutions are adders with norm.

    The design is AdderDet's (arXiv:2112.13608): an identity shortcut around
    each 3x3 output adder, no activation. The norm after every adder is ours
    and mandatory: a raw adder output lies hundreds below zero, and without
    norm training diverges. With ``num_outs=5`` the outputs are P2 to P6, and
    P6 is P5 at every second pixel (MMDetection's max pooling).

    Args:
        in_channels: channels of the backbone's stages.
        out_channels: channels of every output.
        num_outs: number of outputs.
        shortcut: add the input of each output adder to its output. The
            checkpoint keys do not depend on it.
        conv_cfg: None gives the CNN twin, all else equal.
        norm_cfg: required with adders.
        **kwargs: of MMDetection's FPN. Extra stride-2 convolutions
            (``add_extra_convs``) get no shortcut.
    Input:
        list or tuple of (N, in_channels[i], H_i, W_i), finest first.
    Returns:
        tuple: ``num_outs`` tensors (N, out_channels, H_i, W_i); each one
        beyond the inputs halves the size, rounded up.
    Raises:
        InputError: adders without norm.
    Example:
        >>> neck = AdderFPN([64, 128], 32, num_outs=3)
        >>> inputs = [torch.rand(2, 64, 16, 16), torch.rand(2, 128, 8, 8)]
        >>> for features in neck(inputs):
        ...     print(tuple(features.shape))
        (2, 32, 16, 16)
        (2, 32, 8, 8)
        (2, 32, 4, 4)
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int,
                 num_outs: int = 5,
                 *,
                 shortcut: bool = True,
                 conv_cfg: dict | None = dict(
                     type='AdderConv2d', weight_norm='AWN'),
                 norm_cfg: dict | None = dict(type='BN', requires_grad=True),
                 act_cfg: dict | None = None,
                 **kwargs):
        super().__init__(
            in_channels,
            out_channels,
            num_outs,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            **kwargs)
        self.shortcut = shortcut
        if shortcut:
            self._add_shortcuts()
        self._require_norm()

    def _add_shortcuts(self):
        self._put_shortcuts(self.fpn_convs)

    def _put_shortcuts(self, convs):
        """Build the stride-1 members of a ModuleList anew, with shortcuts."""
        for level, module in enumerate(convs):
            if module.stride == (1, 1):
                convs[level] = ShortcutConvModule(
                    self.out_channels,
                    self.out_channels,
                    3,
                    padding=1,
                    conv_cfg=module.conv_cfg,
                    norm_cfg=module.norm_cfg,
                    act_cfg=module.act_cfg,
                    inplace=False)

    def _require_norm(self):
        for name, module in self.named_modules():
            if (isinstance(module, ConvModule) and not module.with_norm
                    and isinstance(module.conv, AdderConv2d)):
                raise InputError(
                    f'{name} of {type(self).__name__} is an adder without '
                    'norm, which cannot be trained: set norm_cfg, for example '
                    "norm_cfg=dict(type='BN'), and leave "
                    'no_norm_on_lateral False')


class ShortcutConvModule(ConvModule):
    """ConvModule that adds its input; same checkpoint keys.

    Takes ConvModule's arguments. Input and output shapes must be equal.

    Attributes:
        adds_input: False takes the shortcut away.
    """

    adds_input = True

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        output = super().forward(x, *args, **kwargs)
        return x + output if self.adds_input else output
