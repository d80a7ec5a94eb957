"""Path-aggregation neck of adder layers."""

from mmdet.models.necks import PAFPN
from mmengine.registry import MODELS

from .adder_fpn import AdderFPN


@MODELS.register_module()
class AdderPAFPN(AdderFPN, PAFPN):
    """PAFPN of adders with norm: AdderFPN and a second, bottom-up path.

    The neck of PANet (arXiv:1803.01534). AdderFPN's arguments, shortcuts and
    norms; the path adds two adders per level: one of stride 2, whose output
    joins the level above, without shortcut, and one of stride 1, with.

    Args:
        in_channels, out_channels, num_outs: see :class:`AdderFPN`, as for
            ``shortcut``, ``conv_cfg`` (None gives the CNN twin) and
            ``norm_cfg``.
        **kwargs: of MMDetection's PAFPN, which has no ``upsample_cfg``.
    Input:
        list or tuple of (N, in_channels[i], H_i, W_i), finest first; each
        size is half the one before, rounded up.
    Returns:
        tuple: ``num_outs`` tensors (N, out_channels, H_i, W_i), as AdderFPN.
    Raises:
        InputError: adders without norm.
    Example:
        >>> neck = AdderPAFPN([64, 128], 32, num_outs=3)
        >>> inputs = [torch.rand(2, 64, 16, 16), torch.rand(2, 128, 8, 8)]
        >>> for features in neck(inputs):
        ...     print(tuple(features.shape))
        (2, 32, 16, 16)
        (2, 32, 8, 8)
        (2, 32, 4, 4)
    """

    def _add_shortcuts(self):
        super()._add_shortcuts()
        self._put_shortcuts(self.pafpn_convs)
