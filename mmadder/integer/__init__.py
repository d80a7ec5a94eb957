from .network import IntegerNetwork

__all__ = ['IntegerNetwork']
