"""ResNets of adder layers, for classification and detection alike."""

from collections.abc import Sequence
from typing import Self

from mmengine.model import update_init_info
from mmengine.registry import MODELS
from mmpretrain.models import ResNet, ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock

from mmadder.checkpoints.state_dict import load_pretrained, split_pretrained
from mmadder.errors import InputError
from mmadder.files import require_file

# Classifier of torchvision's ResNets, which have no backbone prefix.
CLASSIFIER = ('fc.', )


@MODELS.register_module()
class AdderResNet(ResNet):
    """ResNet whose residual blocks are built of adder layers.

    All 3x3 and 1x1 convolutions of the blocks, the 1x1 downsample included,
    become adders; the stem stays an ordinary convolution (AdderNet,
    arXiv:1912.13200). The class is MMPretrain's ResNet on MMEngine's root
    registry: one name in MMPretrain and MMDetection configs, and checkpoints
    of the one load into the other.

    Differences from MMPretrain's and MMDetection's defaults:

    - ``conv_cfg`` builds adders with Adaptive Weight Normalization
      ("Towards Stable and Robust AdderNets", NeurIPS 2021);
      ``conv_cfg=None`` gives the CNN twin, all else equal.
    - No stage is frozen and batch norms learn, also in detection: adder
      features have a large variance (AdderDet, arXiv:2112.13608).
    - ``zero_init_residual=False``: a block that starts at zero sends no
      gradient to its last adder.
    - ``init_cfg=dict(type='Pretrained', checkpoint=F, prefix='backbone.')``
      loads every key of the backbone or fails; see
      :func:`mmadder.checkpoints.state_dict.load_pretrained`. Convolutions,
      adders without weight norm and with weight standardization have equal
      keys: the config that MMEngine keeps in a checkpoint tells them apart,
      in a file without one nothing does.

    Args:
        depth: 18, 34 or 50.
        conv_cfg: layers of the residual blocks.
        norm_eval: keep batch norms in evaluation mode in training.
        zero_init_residual: start the last norm of each block at zero.
        **kwargs: of MMPretrain's ResNet, such as ``stem_channels`` and
            ``base_channels`` (64), ``out_indices`` ((3, )),
            ``frozen_stages`` (-1), ``norm_cfg`` (BN) and ``init_cfg``.
    Input:
        (N, in_channels, H, W), float.
    Returns:
        tuple: for each stage i of ``out_indices``, its features
        (N, base_channels * expansion * 2**i, H / 2**(i + 2), W / 2**(i + 2)),
        sizes rounded up; expansion is 1, for depth 50 it is 4.
    Raises:
        InputError: another depth, or a pretrained checkpoint that does not
            fit.
    Example:
        >>> model = AdderResNet(18, out_indices=(0, 1, 2, 3))
        >>> for features in model(torch.rand(2, 3, 64, 64)):
        ...     print(tuple(features.shape))
        (2, 64, 16, 16)
        (2, 128, 8, 8)
        (2, 256, 4, 4)
        (2, 512, 2, 2)
    """

    arch_settings = {
        depth: ResNet.arch_settings[depth] for depth in (18, 34, 50)}

    def __init__(self,
                 depth: int,
                 *,
                 conv_cfg: dict | None = dict(
                     type='AdderConv2d', weight_norm='AWN'),
                 norm_eval: bool = False,
                 zero_init_residual: bool = False,
                 **kwargs):
        if depth not in self.arch_settings:
            raise InputError(
                f'depth of {type(self).__name__} must be one of '
                f'{tuple(self.arch_settings)}, got {depth!r}')
        super().__init__(
            depth,
            conv_cfg=conv_cfg,
            norm_eval=norm_eval,
            zero_init_residual=zero_init_residual,
            **kwargs)

    def _make_stem_layer(self, in_channels, stem_channels):
        conv_cfg, self.conv_cfg = self.conv_cfg, None
        super()._make_stem_layer(in_channels, stem_channels)
        self.conv_cfg = conv_cfg

    def init_weights(self) -> None:
        """Initialize, then load the ``Pretrained`` checkpoint, if any."""
        first_time, init_cfg = not self.is_init, self.init_cfg
        self.init_cfg, pretrained = split_pretrained(init_cfg)
        super().init_weights()
        self.init_cfg = init_cfg
        if first_time and pretrained is not None:
            require_file(
                pretrained['checkpoint'], 'pretrained checkpoint', 'train it '
                'first, or set init_cfg=None to start from random weights')
            load_pretrained(self, ignore=CLASSIFIER, **pretrained)
            self._log_pretrained(pretrained['checkpoint'])

    def train(self, mode: bool = True) -> Self:
        """Set the mode; MMPretrain's method returns None."""
        super().train(mode)
        return self

    def _log_pretrained(self, checkpoint):
        # Present only while the whole model is being initialized.
        if hasattr(self, '_params_init_info'):
            update_init_info(
                self, f'{type(self).__name__}: load from {checkpoint}')


@MODELS.register_module()
class AdderResNetCIFAR(AdderResNet, ResNet_CIFAR):
    """ResNet for pictures of 32x32, of adder layers.

    The network of AdderNet's CIFAR experiments and of Table 1 in "Towards
    Stable and Robust AdderNets" (NeurIPS 2021): a 3x3 convolution without
    pooling, then three stages of basic blocks with 16, 32 and 64 channels,
    all adders. Keys are those of AdderNet's code, except that it calls the
    weight of an adder ``adder``.

    Args:
        depth: 20 or 32.
        conv_cfg: layers of the residual blocks; None gives the CNN twin.
        **kwargs: of :class:`AdderResNet`. ``stem_channels`` and
            ``base_channels`` are 16 here.
    Input:
        (N, in_channels, H, W), float.
    Returns:
        tuple: features (N, base_channels * 4, H / 4, W / 4), sizes rounded
        up, or those of the stages in ``out_indices`` ((2, )).
    Raises:
        InputError: another depth, or a pretrained checkpoint that does not
            fit.
    Example:
        >>> features, = AdderResNetCIFAR(20)(torch.rand(2, 3, 32, 32))
        >>> tuple(features.shape)
        (2, 64, 8, 8)
    """

    arch_settings = {20: (BasicBlock, (3, 3, 3)), 32: (BasicBlock, (5, 5, 5))}

    def __init__(self,
                 depth: int,
                 *,
                 stem_channels: int = 16,
                 base_channels: int = 16,
                 num_stages: int = 3,
                 strides: Sequence[int] = (1, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1),
                 out_indices: Sequence[int] = (2, ),
                 **kwargs):
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            **kwargs)
