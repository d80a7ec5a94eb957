"""The networks that a GPU is measured by, on the CPU at tiny sizes."""
import pytest
import torch

from mmadder.benchmark import throughput
from mmadder.layers import AdderConv2d, adder_fraction


@pytest.mark.parametrize('name', throughput.NETWORKS)
@pytest.mark.parametrize('variant', throughput.VARIANTS)
def test_networks_are_those_of_the_variants(name, variant):
    model, optimizer = throughput.build(
        throughput.rehearsal(name), variant, 'cpu')
    adders = [layer for layer in model.modules()
              if isinstance(layer, AdderConv2d)]
    assert bool(adders) == (variant != 'CNN')
    assert all((layer.awn is not None) == (variant != 'ANN')
               and layer.center == (variant == 'centered')
               for layer in adders)
    assert adder_fraction(model) in (None, 1)
    stepped = {id(parameter) for group in optimizer.param_groups
               for parameter in group['params']}
    assert stepped >= set(map(id, model.parameters()))


def test_both_calls_do_what_they_say():
    network = throughput.rehearsal('resnet20')
    model, optimizer = throughput.build(network, 'centered', 'cpu')
    batch = throughput.make_batch(network, model, 'cpu')
    calls = throughput.make_calls(model, optimizer, batch, 'cpu', None)
    before = [p.clone() for p in model.parameters()]
    calls['inference']()
    assert not model.training
    assert all(map(torch.equal, before, model.parameters()))
    calls['train']()
    assert model.training
    assert sum(map(torch.equal, before, model.parameters())) < len(before) / 2


def test_rows(capsys):
    rows = throughput.measure(['resnet20'], 1, 'cpu', rehearse=True)
    assert [(row['layers'], row['precision']) for row in rows] == [
        (variant, precision) for variant in throughput.VARIANTS
        for precision in ('float32', 'TF32', 'bfloat16')]
    assert all(row['train'] > 0 and row['inference'] > 0
               and row['memory'] is None for row in rows)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith('ResNet-20')]) == 12
    assert torch.backends.cudnn.allow_tf32  # as it was
