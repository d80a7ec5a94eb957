"""The classification head of AdderNet's reference networks."""

from mmengine.registry import MODELS
from mmpretrain.models import LinearClsHead
from torch import Tensor, nn


@MODELS.register_module()
class BNLogitsHead(LinearClsHead):
    """Linear head with batch normalization on the logits.

    AdderNet's code (arXiv:1912.13200) classifies with a 1x1 convolution
    behind global pooling, which is a linear layer, and normalizes its output
    over the batch. Robust inference counts this norm apart from the others,
    because its statistics come from N values only.

    Args:
        num_classes: classes.
        in_channels: features.
        bias: of the linear layer. AdderNet's ResNet-50 has one, its
            ResNet-20 does not.
        init_cfg: None keeps PyTorch's initialization, as
            AdderNet does: behind a norm, the usual standard deviation of 0.01
            would multiply the steps of training.
        **kwargs: of MMPretrain's LinearClsHead.
    Input:
        tuple: the last one is (N, in_channels).
    Returns:
        (N, num_classes). In training mode N must be above 1.
    Example:
        >>> head = BNLogitsHead(10, 64)
        >>> tuple(head((torch.rand(4, 64), )).shape)
        (4, 10)
        >>> [key for key, _ in head.named_parameters()]
        ['fc.weight', 'bn.weight', 'bn.bias']
    """

    def __init__(self,
                 num_classes: int,
                 in_channels: int,
                 bias: bool = False,
                 init_cfg: dict | list[dict] | None = None,
                 **kwargs):
        super().__init__(
            num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.fc = nn.Linear(in_channels, num_classes, bias=bias)
        self.bn = nn.BatchNorm1d(num_classes)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.bn(super().forward(feats))
