from .inference import (RobustInferenceHook, RobustInferenceWarning,
                        robust_inference)

__all__ = [
    'RobustInferenceHook', 'RobustInferenceWarning', 'robust_inference'
]
