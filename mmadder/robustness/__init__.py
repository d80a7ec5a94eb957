from .adversarial_training import AdversarialTrainingHook
from .attacks import Attack, BudgetError, check_budget
from .batch_statistics import (
    RobustInferenceHook,
    RobustInferenceWarning,
    robust_inference,
)
from .checks import (
    check_detector,
    check_features,
    check_model,
    check_paths,
    check_results,
    check_row,
    check_sweep,
    check_unbounded,
    count_path,
)
from .classification import Evaluation
from .columns import (
    Column,
    adaptive_column,
    attacker_columns,
    corruption_columns,
    eps_sweep,
    neighbours_columns,
    steps_sweep,
    table_columns,
    unbounded_column,
)
from .corruptions import Corruption
from .data import load_pixels, recalibrate
from .detection import DetectionEvaluation, PixelDetector
from .evaluation import BaseEvaluation
from .features import norm_inputs
from .pictures import Pictures
from .pixels import LossLogits, PixelClassifier
from .report import corruption_table, markdown_table, write_merged

__all__ = [
    'AdversarialTrainingHook', 'Attack', 'BaseEvaluation', 'BudgetError',
    'Column', 'Corruption', 'DetectionEvaluation', 'Evaluation', 'LossLogits',
    'Pictures', 'PixelClassifier', 'PixelDetector', 'RobustInferenceHook',
    'RobustInferenceWarning', 'adaptive_column', 'attacker_columns',
    'check_budget', 'check_detector', 'check_features', 'check_model',
    'check_paths', 'check_results', 'check_row', 'check_sweep',
    'check_unbounded', 'corruption_columns', 'corruption_table', 'count_path',
    'eps_sweep', 'load_pixels', 'markdown_table', 'neighbours_columns',
    'norm_inputs', 'recalibrate', 'robust_inference', 'steps_sweep',
    'table_columns', 'unbounded_column', 'write_merged'
]
