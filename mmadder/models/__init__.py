from .backbones import AdderResNet, AdderResNetCIFAR
from .heads import BNLogitsHead
from .necks import AdderFPN

__all__ = ['AdderFPN', 'AdderResNet', 'AdderResNetCIFAR', 'BNLogitsHead']
