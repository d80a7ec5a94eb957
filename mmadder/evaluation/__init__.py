from .cross_entropy import CrossEntropyMetric

__all__ = ['CrossEntropyMetric']
