"""Adder neural networks for the OpenMMLab stack.

Importing the package fills MMEngine's registries: layers, models, datasets,
transforms and hooks can be named in any MMDetection or MMPretrain config
with ``custom_imports = dict(imports=['mmadder'])``.
"""
from .dependencies import require_dependencies
from .version import __version__

try:
    from . import datasets, engine, layers, models, ops
except ModuleNotFoundError as error:
    require_dependencies(error)
    raise

__all__ = ['__version__', 'datasets', 'engine', 'layers', 'models', 'ops']
