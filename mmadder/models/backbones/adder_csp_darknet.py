"""The backbone of YOLOX, of adder layers."""
from typing import Self

from mmdet.models.backbones import CSPDarknet
from mmdet.models.backbones.csp_darknet import Focus
from mmengine.registry import MODELS


@MODELS.register_module()
class AdderCSPDarknet(CSPDarknet):
    """CSP-Darknet whose layers are adders, all but the stem.

    MMDetection's CSPDarknet hands ``conv_cfg`` to its stem too. Against
    pixels of 0 to 255 the weights of an adder make no difference, and
    AdderNets keep their first layer a convolution (arXiv:1912.13200).

    Args:
        conv_cfg: layers behind the stem; None gives MMDetection's CSPDarknet.
        **kwargs: of MMDetection's CSPDarknet, such as ``deepen_factor``,
            ``widen_factor`` and ``norm_cfg`` (BN).
    Input:
        (N, 3, H, W), float; H and W are even.
    Returns:
        tuple: for each i of ``out_indices`` ((2, 3, 4)), features
        (N, 64 * widen_factor * 2**i, H / 2**(i + 1), W / 2**(i + 1)), sizes
        rounded up.
    Example:
        >>> model = AdderCSPDarknet(deepen_factor=0.33, widen_factor=0.5)
        >>> for features in model(torch.rand(2, 3, 64, 64)):
        ...     print(tuple(features.shape))
        (2, 128, 8, 8)
        (2, 256, 4, 4)
        (2, 512, 2, 2)
    """

    def __init__(self,
                 *,
                 conv_cfg: dict | None = dict(
                     type='AdderConv2d', weight_norm='AWN'),
                 norm_cfg: dict = dict(type='BN', momentum=0.03, eps=0.001),
                 act_cfg: dict = dict(type='Swish'),
                 **kwargs):
        super().__init__(
            conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, **kwargs)
        self.stem = Focus(
            3,
            self.stem.conv.out_channels,
            kernel_size=3,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; MMDetection's method returns None."""
        super().train(mode)
        return self
