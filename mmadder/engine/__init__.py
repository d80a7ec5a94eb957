from . import optimizer_warnings
from .checkpoint import CheckpointCheckHook
from .data_root import replace_data_root
from .loss_metric import CrossEntropyMetric
from .loss_scale_hook import LossScaleHook
from .statistics_hook import StatisticsHook

__all__ = [
    'CheckpointCheckHook', 'CrossEntropyMetric', 'LossScaleHook',
    'StatisticsHook', 'optimizer_warnings', 'replace_data_root'
]
