from .attacks import Attack, BudgetError, PixelClassifier, check_budget
from .checks import check_model, check_results, check_sweep
from .data import load_pixels, recalibrate
from .evaluation import (Column, Evaluation, attacker_columns, eps_sweep,
                         steps_sweep, table_columns)
from .inference import (RobustInferenceHook, RobustInferenceWarning,
                        robust_inference)
from .report import markdown_table, write_merged

__all__ = [
    'Attack', 'BudgetError', 'Column', 'Evaluation', 'PixelClassifier',
    'RobustInferenceHook', 'RobustInferenceWarning', 'attacker_columns',
    'check_budget', 'check_model', 'check_results', 'check_sweep',
    'eps_sweep', 'load_pixels', 'markdown_table', 'recalibrate',
    'robust_inference', 'steps_sweep', 'table_columns', 'write_merged'
]
