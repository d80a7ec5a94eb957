from . import optimizer_warnings
from .checkpoint import CheckpointCheckHook
from .data_root import replace_data_root
from .loss_scale_hook import LossScaleHook

__all__ = [
    'CheckpointCheckHook', 'LossScaleHook', 'optimizer_warnings',
    'replace_data_root'
]
