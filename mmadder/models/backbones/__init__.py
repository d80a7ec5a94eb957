from .adder_csp_darknet import AdderCSPDarknet
from .adder_resnet import AdderResNet, AdderResNetCIFAR

__all__ = ['AdderCSPDarknet', 'AdderResNet', 'AdderResNetCIFAR']
