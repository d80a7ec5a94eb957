from .fusion import FusedAdderConv2d, FusedBlock, fuse_adder_bn
from .plan import Planned, make_plan
from .post_training import QuantizedAdderConv2d, empty_quantized, quantize
from .quantized_checkpoint import is_quantized, save_quantized

__all__ = [
    'FusedAdderConv2d', 'FusedBlock', 'Planned', 'QuantizedAdderConv2d',
    'empty_quantized', 'fuse_adder_bn', 'is_quantized', 'make_plan',
    'quantize', 'save_quantized'
]
