from .backbones import AdderCSPDarknet, AdderResNet, AdderResNetCIFAR
from .heads import BNLogitsHead
from .necks import AdderFPN

__all__ = [
    'AdderCSPDarknet', 'AdderFPN', 'AdderResNet', 'AdderResNetCIFAR',
    'BNLogitsHead'
]
