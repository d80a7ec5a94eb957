from . import optimizer_warnings
from .checkpoint import CheckpointCheckHook
from .clip_grad_hook import AdderClipGradHook, spare_adders
from .data_root import replace_data_root
from .loss_metric import CrossEntropyMetric
from .loss_scale_hook import LossScaleHook
from .report_hook import DetectionReportHook
from .statistics_hook import StatisticsHook

__all__ = [
    'AdderClipGradHook', 'CheckpointCheckHook', 'CrossEntropyMetric',
    'DetectionReportHook', 'LossScaleHook', 'StatisticsHook',
    'optimizer_warnings', 'replace_data_root', 'spare_adders'
]
