from .backbones import AdderResNet
from .necks import AdderFPN

__all__ = ['AdderFPN', 'AdderResNet']
