"""The packages of the ONNX export, which ``import mmadder`` never needs."""
import importlib.util

import torch

from mmadder.errors import InputError

PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')


def require_packages() -> None:
    """Raise InputError unless a model can be exported, and run, as ONNX."""
    missing = [name for name in PACKAGES
               if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f'ONNX files need {", ".join(missing)}, not installed here: `pip '
            'install -r requirements/export.txt`, or `pip install '
            '"mmadder[export]"`')
    if not hasattr(getattr(torch.onnx, 'ops', None), 'symbolic'):
        raise InputError('the export to ONNX needs torch 2.8 or later, this '
                         f'is {torch.__version__}')
