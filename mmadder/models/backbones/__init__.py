from .adder_resnet import AdderResNet, AdderResNetCIFAR

__all__ = ['AdderResNet', 'AdderResNetCIFAR']
