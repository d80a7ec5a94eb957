import pytest
import torch

from mmadder.ops import adder_conv2d, extension


def test_missing_extension_says_how_to_build(monkeypatch):
    monkeypatch.setattr(extension, '_missing', 'the file is not there')
    with pytest.raises(RuntimeError, match='pip install -e . --no-build'):
        adder_conv2d(torch.zeros(1, 4, 5, 5), torch.zeros(6, 4, 3, 3))
