'''Adder neural networks for the OpenMMLab stack.

Importing the package fills MMEngine's registries: layers, models, datasets,
transforms and hooks can be named in any MMDetection or MMPretrain config
with ``custom_imports = dict(imports=['mmadder'])``.
'''
from .dependencies import MISSING, quiet_imports
from .version import __version__

if MISSING:
    raise ImportError(MISSING)

with quiet_imports():
    from . import (
        analysis,
        datasets,
        engine,
        evaluation,
        layers,
        models,
        ops,
        robustness,
    )

__all__ = [
    '__version__', 'analysis', 'datasets', 'engine', 'evaluation', 'layers',
    'load', 'models', 'ops', 'robustness'
]


def __getattr__(name):
    # What it needs is imported by the first who asks.
    if name == 'load':
        from .apis import load
        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
