from .adder_conv2d import adder_conv2d, center_filters
from .fused import pack_weight

__all__ = ['adder_conv2d', 'center_filters', 'pack_weight']
