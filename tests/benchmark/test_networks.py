"""Whole models as timed calls."""
import gc
import json
import tempfile

import pytest
import torch

from mmadder.benchmark import networks, summary, timing
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


@pytest.mark.slow
@pytest.mark.parametrize('name', networks.BENCHMARKS)
def test_every_variant_runs(name):
    for call in networks.calls(
            networks.BENCHMARKS[name]()[0], compiled=False).values():
        call()
