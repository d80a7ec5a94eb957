from .adder_conv2d import adder_conv2d
from .fused import pack_weight

__all__ = ['adder_conv2d', 'pack_weight']
