from . import optimizer_warnings
from .checkpoint import CheckpointCheckHook
from .clip_grad_hook import AdderClipGradHook, spare_adders
from .data_root import replace_data_root
from .loss_scale_hook import LossScaleHook

__all__ = [
    'AdderClipGradHook', 'CheckpointCheckHook', 'LossScaleHook',
    'optimizer_warnings', 'replace_data_root', 'spare_adders'
]
