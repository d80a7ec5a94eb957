"""What the GPU benchmark says where it cannot run, and its parts on a CPU."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmadder.benchmark import cuda
from mmadder.errors import InputError
from mmadder.ops import adder_conv2d

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.mark.skipif(torch.cuda.is_available(), reason='for want of a GPU')
def test_command_says_what_is_missing():
    result = subprocess.run(
        [sys.executable, TOOLS / 'benchmark.py', '--device', 'cuda'],
        capture_output=True, text=True)
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith('--device cuda: ')
    assert 'no GPU on this machine' in message or 'MMADDER_CUDA=1' in message


def test_build_without_cuda_is_said(monkeypatch):
    monkeypatch.setattr(cuda, 'kernel_devices', lambda: {'cpu'})
    with pytest.raises(InputError, match='without CUDA.*MMADDER_CUDA=1 pip'):
        cuda.require_gpu()


def test_peer_is_the_same_function():
    x, w = cuda.draw(2, 5, 9, 7, 3)
    torch.testing.assert_close(
        cuda.cdist_conv2d(x, w, 2, 1),
        adder_conv2d(x, w, None, 2, 1), rtol=1e-4, atol=1e-4)


def test_errors_of_the_cpu_are_small(monkeypatch):
    """The comparison itself, with the CPU in place of the GPU."""
    original = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, 'to', lambda tensor, device, *rest: original(
            tensor, 'cpu' if device == 'cuda' else device, *rest))
    for layer in cuda.CHECKED.values():
        rows = cuda.errors(layer)
        assert max(rows['cpu float32']) < 1e-5
        assert max(rows['cuda float16']) < 2e-2
        assert max(rows['cuda bfloat16']) < 1e-1
