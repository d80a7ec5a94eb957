"""Other runtimes give what the network gives."""
import pytest
import torch
from settling import relative_error, settle
from torch import nn

from mmadder.benchmark.peers import peers


def network():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 20, 18)
    return x, settle(nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)), x)


@pytest.mark.filterwarnings('ignore')  # of the runtimes
@pytest.mark.parametrize('name, bound', [
    ('ONNX Runtime', 1e-5), ('OpenVINO', 1e-5), ('OpenVINO, bfloat16', 0.03),
    ('int8 (torch, onednn)', 0.1), ('int8 (OpenVINO, NNCF)', 0.1)])
def test_outputs(name, bound):
    if name not in peers():
        pytest.skip('not installed: requirements/peers.txt')
    x, model = network()
    run = peers()[name](model, x)
    with torch.no_grad():
        expected = model(x)
    for _ in range(2):
        assert relative_error(run(), expected) < bound


def test_missing_ones_are_left_out(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert all('torch' in name for name in peers())
