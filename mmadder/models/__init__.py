from .backbones import AdderCSPDarknet, AdderResNet, AdderResNetCIFAR
from .build import build_model, unwrap_model
from .classifiers import DistilledClassifier
from .heads import BNLogitsHead
from .necks import AdderFPN, AdderPAFPN

__all__ = [
    'AdderCSPDarknet', 'AdderFPN', 'AdderPAFPN', 'AdderResNet',
    'AdderResNetCIFAR', 'BNLogitsHead', 'DistilledClassifier', 'build_model',
    'unwrap_model'
]
