from .cifar import CIFAR10Images
from .digits import make_digits
from .loading import CheckedLoadImageFromFile
from .voc import CheckedXMLDataset

__all__ = [
    'CIFAR10Images', 'CheckedLoadImageFromFile', 'CheckedXMLDataset',
    'make_digits'
]
