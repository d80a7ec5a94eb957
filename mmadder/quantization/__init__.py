from .checkpoint import is_quantized, save_quantized
from .post_training import QuantizedAdderConv2d, empty_quantized, quantize

__all__ = [
    'QuantizedAdderConv2d', 'empty_quantized', 'is_quantized', 'quantize',
    'save_quantized'
]
