from .adder_conv2d import adder_conv2d

__all__ = ['adder_conv2d']
