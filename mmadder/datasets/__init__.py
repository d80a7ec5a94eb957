from .digits import make_digits
from .loading import CheckedLoadImageFromFile
from .voc import CheckedXMLDataset

__all__ = ['CheckedLoadImageFromFile', 'CheckedXMLDataset', 'make_digits']
