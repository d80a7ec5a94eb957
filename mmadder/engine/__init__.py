from . import optimizer_warnings
from .adder_check_hook import AdderCheckHook
from .annealing_hook import AnnealingHook
from .checkpoint_check_hook import CheckpointCheckHook
from .clip_grad_hook import AdderClipGradHook, spare_adders
from .loss_scale_hook import LossScaleHook
from .precise_batch_norm_hook import PreciseBatchNormHook
from .statistics_hook import StatisticsHook

__all__ = [
    'AdderCheckHook', 'AdderClipGradHook', 'AnnealingHook',
    'CheckpointCheckHook', 'LossScaleHook', 'PreciseBatchNormHook',
    'StatisticsHook', 'optimizer_warnings', 'spare_adders'
]
