"""Timing, memory and tables of the benchmark, and its command line."""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from mmadder.benchmark import networks, operators, summary, timing
from mmadder.benchmark.shapes import SHAPE_SETS, Layer
from mmadder.ops import reference

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'
LAYER = Layer(2, 3, (7, 6), 5, 3, 2)


def test_layer_is_the_convolution_that_runs():
    problem = operators.Problem.random(LAYER)
    output = operators.conv2d(problem)()
    assert output.shape == (2, 5, *LAYER.out_size) == problem.grad.shape
    assert LAYER.elements == output.numel() * 3 * 9
    assert str(LAYER) == '2x3x7x6 3x3 5 /2'


def test_shape_sets():
    """Adder layers of ResNet-18: its MACs without stem and classifier."""
    batch = 2
    layers = SHAPE_SETS['resnet18'](batch)
    times = [4, 1, 1, 3, 1, 1, 3, 1, 1, 3]  # how often each occurs
    assert sum(map(lambda n, layer: n * layer.elements, times, layers)) == (
        1_814_073_344 - 118_013_952 - 512_000) * batch
    assert [layer.size for layer in SHAPE_SETS['fpn']()][::2] == [
        (152, 256), (76, 128), (38, 64), (19, 32)]


@pytest.mark.parametrize('name', ['auto', 'exact', 'max', 'cdist'])
def test_forward_candidates_compute_the_same(name):
    problem = operators.Problem.random(LAYER)
    expected = reference.adder_conv2d(problem.x, problem.w, 2, 1)
    torch.testing.assert_close(
        operators.MAKERS[name](problem)(), expected, rtol=1e-4, atol=1e-4)


def test_every_candidate_runs():
    calls = operators.calls(LAYER, list(operators.GROUPS))
    assert set(operators.MAKERS) - set(calls) <= {'int8', 'faiss'}
    for call in calls.values():
        call()


def test_median_times_gives_each_its_own():
    times = timing.median_times(
        dict(short=lambda: time.sleep(.002), long=lambda: time.sleep(.02)),
        rounds=3)
    assert .002 <= times['short'] < times['long']
    assert times['long'] >= .02


def test_slow_candidates_sit_out():
    runs = []
    timing.median_times(
        dict(slow=lambda: runs.append(time.sleep(.02))), rounds=9, most=.03)
    assert len(runs) == 4  # once before, three rounds


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_peak_memory_counts_what_is_freed():
    def call():
        kept = torch.ones(8, 2**18)  # 8 MiB
        return (kept + 1)[:1].clone()

    assert 15 < timing.peak_memory(call) / 2**20 < 24


def test_tables_show_ratios_and_targets():
    layer = Layer(1, 32, (8, 8), 32, 3)
    results = {layer: dict(conv2d=1., max=1.25, faiss=5., exact=1.)}
    text = '\n'.join(summary.operator_table(results, ['forward', 'peers']))
    assert '1000.00' in text and '0.80' in text and '0.20' in text
    text = '\n'.join(summary.target_lines(results))
    assert 'missed' in text and 'reached' in text
    assert summary.ratios(results, 'max', other='faiss') == [4.]
    text = '\n'.join(summary.scaling_lines(
        {1: results, 2: {layer: dict(conv2d=.5, max=1., faiss=5.)}},
        ['peers']))
    assert '2.00' in text


def test_command_writes_json(tmp_path):
    target = tmp_path / 'figures.json'
    result = subprocess.run(
        [sys.executable, TOOL, '--layers', 'resnet20', '--batch', '1',
         '--rounds', '1', '--what', 'forward', '--json', target],
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'mean, 3x3, C >= 32' in result.stdout
    figures = json.loads(target.read_text())
    times = figures['figures']['resnet20']['seconds']['1']
    assert times['1x64x8x8 3x3 64']['max'] > 0


def test_batch_does_not_change_the_targets():
    result = subprocess.run([sys.executable, TOOL, '--batch', '2'],
                            capture_output=True, text=True)
    assert result.returncode == 2
    assert 'have batches of their own' in result.stderr


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


@pytest.mark.slow
def test_models_are_measured():
    result = subprocess.run(
        [sys.executable, TOOL, '--models', 'resnet18', '--rounds', '1',
         '--no-compile'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines()
             if line.startswith('  ')]
    assert len(lines) == 12
    for line in lines:
        assert float(line.split()[-1]) > 0
