"""Whole models as timed calls."""
import gc
import json
import tempfile

import pytest
import torch

from mmadder import timing
from mmadder.benchmark import networks, summary
from mmadder.statistics import find_norms


def test_batch_norms_see_normal_features():
    """Random weights, but features spread as in a trained network."""
    benchmark = networks.ResNet18(1)
    model = benchmark.model(networks.ANN_AWN)
    assert not any(module.training for module in model.modules())
    spreads = []
    for norm in find_norms(model):
        norm.register_forward_hook(
            lambda module, args, output: spreads.append(
                (output.mean().item(), output.std().item())))
    with torch.no_grad():
        model.extract_feat(benchmark.images())
    assert len(spreads) == 20
    # The last norms were fitted to 49 values per channel.
    assert all(abs(mean) < .05 and .9 < std < 1.1 for mean, std in spreads)


def test_recording_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    benchmark = networks.Recording(2)
    calls = networks.calls(benchmark)
    times = timing.median_times(calls, 1)
    file, = tmp_path.glob('*/vis_data/statistics.jsonl')
    layers = json.loads(file.read_text().splitlines()[0])['layers']
    assert sum(layer['kind'] == 'adder' for layer in layers.values()) == 20
    *_, last = summary.model_table(benchmark, times, {})
    assert last.startswith('one recorded step in 5000, an epoch of 10,000')
    assert networks.Recording(128).summary(dict(zip(
        calls, (1., 1., 2.58)))).endswith(': +2.0 %')
    del calls
    gc.collect()
    assert not list(tmp_path.iterdir())  # gone with what wrote into them


def test_torch_compile_can_be_left_out():
    benchmark = networks.ResNet18(1)
    benchmark.variants = dict.fromkeys(benchmark.variants, dict)
    names = list(benchmark.variants)
    assert list(networks.calls(benchmark)) == names
    names.remove('CNN, torch.compile')
    assert list(networks.calls(benchmark, compiled=False)) == names


def test_errors_are_those_of_a_family():
    """Adders are compared with adders, convolutions with convolutions."""
    logits = {'CNN': [4., 2.], 'CNN, b': [4., 3.], 'CNN, x, y': [4., 2.],
              'ANN-AWN': [1., -10.], 'ANN-AWN, fused': [1.5, -10.]}
    calls = {name: lambda value=value: torch.tensor(value)
             for name, value in logits.items()}
    errors = networks.ResNet18(1).errors(calls)
    assert errors == pytest.approx({
        'CNN': 0, 'CNN, b': .25, 'CNN, x, y': 0, 'ANN-AWN': 0,
        'ANN-AWN, fused': .05})
    benchmark = networks.ResNet18(1)
    times = dict.fromkeys(benchmark.variants, 1.)
    lines = summary.model_table(
        benchmark, times, {}, dict.fromkeys(times, .02))
    assert lines[1].split()[-1] == 'error' and lines[2].endswith('2e-02')


def test_peers_take_the_network():
    """What they convert gives the logits that the model gives."""
    benchmark = networks.ResNet18(1)
    model = benchmark.model(None)
    x = benchmark.images()[:, :, :64, :64]
    with torch.no_grad():
        assert torch.equal(networks.Logits(model)(x), model(x, mode='tensor'))


@pytest.mark.slow
@pytest.mark.parametrize('name', networks.BENCHMARKS)
def test_every_variant_runs(name):
    for call in networks.calls(
            networks.BENCHMARKS[name]()[0], compiled=False).values():
        call()
