"""Without the optional packages: a sentence, at the call."""
import importlib.util
import subprocess
import sys

import pytest

from mmadder.errors import InputError
from mmadder.export import OnnxModel
from mmadder.export.packages import PACKAGES, require_packages


def test_missing_packages_are_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: (
        None if name == 'onnxscript' else find(name, *args)))
    with pytest.raises(InputError, match=(
            'ONNX files need .*onnxscript, not installed here: `pip install '
            '-r requirements/export.txt`')):
        require_packages()
    with pytest.raises(InputError, match='onnxscript'):
        OnnxModel('model.onnx')


def test_an_old_torch_is_named(monkeypatch):
    monkeypatch.setattr('mmadder.export.packages.PACKAGES', ())
    monkeypatch.delattr('torch.onnx.ops')
    with pytest.raises(InputError, match='needs torch 2.8 or later'):
        require_packages()


def test_nothing_imports_them_before():
    code = ('import sys, mmadder, mmadder.export\n'
            f'print([name for name in {PACKAGES} if name in sys.modules])')
    result = subprocess.run([sys.executable, '-c', code], text=True,
                            capture_output=True, check=True)
    assert result.stdout.strip() == '[]'
