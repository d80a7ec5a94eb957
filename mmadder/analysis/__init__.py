from .detection import (Detections, average_precision, confusion_matrix,
                        load_detections)
from .report import write_report

__all__ = [
    'Detections', 'average_precision', 'confusion_matrix', 'load_detections',
    'write_report'
]
