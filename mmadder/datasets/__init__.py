from .cifar import CIFAR10Images
from .digits import make_digits
from .image_folder import (
    CheckedCustomDataset,
    CheckedImageNet,
    class_folders,
)
from .voc import CheckedXMLDataset

__all__ = [
    'CIFAR10Images', 'CheckedCustomDataset', 'CheckedImageNet',
    'CheckedXMLDataset', 'class_folders', 'make_digits'
]
