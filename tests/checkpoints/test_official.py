"""What AdderNet's code computes, against its network as modules."""
import pytest
import torch
from official_adder_net import make_adder_net

from mmadder.checkpoints import (
    from_official,
    is_official,
    largest_deviation,
    official_logits,
)


@pytest.mark.parametrize('depth', [
    20, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize('dtype, tolerance', [
    (torch.float32, 1e-3), (torch.float64, 1e-12)])
def test_logits(depth, dtype, tolerance):
    model = make_adder_net(depth)
    images = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        expected = model.double()(images.double())
    found = official_logits(model.float().state_dict(), images.to(dtype))
    assert found.dtype == dtype
    assert largest_deviation(expected, found.double()) < tolerance


def test_keys():
    state_dict = make_adder_net(20).state_dict()
    assert is_official(state_dict)
    renamed = from_official(state_dict)
    assert not is_official(renamed)
    assert len(renamed) == len(state_dict)
    assert torch.equal(renamed['backbone.layer1.0.conv1.weight'],
                       state_dict['layer1.0.conv1.adder'])
    assert renamed['head.fc.weight'].shape == (10, 64)
    assert torch.equal(renamed['head.bn.bias'], state_dict['bn2.bias'])
