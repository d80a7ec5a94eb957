from .adder_fpn import AdderFPN
from .adder_pafpn import AdderPAFPN

__all__ = ['AdderFPN', 'AdderPAFPN']
