from . import optimizer_warnings
from .checkpoint import CheckpointCheckHook
from .data_root import replace_data_root
from .loss_scale_hook import LossScaleHook
from .report_hook import DetectionReportHook

__all__ = [
    'CheckpointCheckHook', 'DetectionReportHook', 'LossScaleHook',
    'optimizer_warnings', 'replace_data_root'
]
