"""What a network found, what it costs, and what the paper says of it."""
from .detection_report import run_facts, write_report
from .detections import (
    Detections,
    average_precision,
    confusion_matrix,
    join_annotations,
    load_detections,
)
from .report_hook import DetectionReportHook

__all__ = [
    'DetectionReportHook', 'Detections', 'average_precision',
    'confusion_matrix', 'join_annotations', 'load_detections', 'run_facts',
    'write_report'
]
