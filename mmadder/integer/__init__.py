from .native import NativeNetwork
from .network import IntegerNetwork

__all__ = ['IntegerNetwork', 'NativeNetwork']
