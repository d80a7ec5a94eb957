from .detection import (Detections, average_precision, confusion_matrix,
                        join_annotations, load_detections)
from .report import run_facts, write_report

__all__ = [
    'Detections', 'average_precision', 'confusion_matrix', 'join_annotations',
    'load_detections', 'run_facts', 'write_report'
]
