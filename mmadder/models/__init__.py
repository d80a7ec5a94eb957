from .backbones import AdderResNet, AdderResNetCIFAR
from .heads import BNLogitsHead
from .necks import AdderFPN, AdderPAFPN

__all__ = [
    'AdderFPN', 'AdderPAFPN', 'AdderResNet', 'AdderResNetCIFAR', 'BNLogitsHead'
]
