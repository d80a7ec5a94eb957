"""The command line of tools/benchmark.py."""
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmadder.benchmark import networks, operators, throughput
from mmadder.benchmark.shapes import SHAPE_SETS

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments],
                          capture_output=True, text=True)


@pytest.fixture
def parse(monkeypatch):
    """The tool's parse_args, for a line of options."""
    tool = runpy.run_path(str(TOOL), dict(
        networks=networks, operators=operators, throughput=throughput,
        SHAPE_SETS=SHAPE_SETS))

    def parse(line):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *line.split()])
        return tool['parse_args']()
    return parse


def test_operators_are_measured(tmp_path):
    target = tmp_path / 'new' / 'figures.json'
    result = run('--layers', 'resnet20', '--batch', '1', '--rounds', '1',
                 '--what', 'forward', '--json', target)
    assert result.returncode == 0, result.stderr
    assert 'mean, 3x3, C >= 32' in result.stdout
    figures = json.loads(target.read_text())
    times = figures['figures']['resnet20']['seconds']['1']
    assert times['1x64x8x8 3x3 64']['max'] > 0


@pytest.mark.parametrize('line, message', [
    ('--batch 2', 'have batches of their own'),
    ('--device cuda --layers fpn targets --batch 2', 'have batches of their'),
    ('--rounds 0', '--rounds must be at least 1'),
    ('--layers fpn --batch 0', '--batch must be at least 1'),
    ('--threads 2 0', '--threads must be at least 1'),
    ('--device cuda --models recording', '--models recording: with --device '
     'cuda there are resnet18, resnet20, faster-rcnn'),
    ('--device cuda --models --batch 2', '--batch has no effect with --mode'),
    ('--rehearse', '--rehearse has no effect on a CPU'),
    ('--no-sanitizer --models', '--no-sanitizer has no effect on a CPU'),
    ('--device cuda --threads 2', '--threads has no effect with --device'),
    ('--device cuda --memory', '--memory has no effect with --device cuda'),
    ('--device cuda --what forward', '--what has no effect with --device'),
    ('--models resnet18 --batch 2', '--batch has no effect with --models'),
    ('--models --layers fpn', '--layers has no effect with --models'),
    ('--no-compile', '--no-compile has no effect without --models'),
])
def test_wrong_options_are_refused(parse, capsys, line, message):
    with pytest.raises(SystemExit, match='2'):
        parse(line)
    assert message in capsys.readouterr().err


def test_defaults(parse):
    args = parse('')
    assert (args.layers, args.threads, args.models) == (['targets'], [1], None)
    assert args.what == list(operators.GROUPS)
    assert parse('--device cuda').layers == ['resnet18']
    assert parse('--models').models == list(networks.BENCHMARKS)
    assert parse('--device cuda --models').models == list(throughput.NETWORKS)
    assert parse('--models recording --no-compile --memory').no_compile


@pytest.mark.skipif(torch.cuda.is_available(), reason='for want of a GPU')
def test_missing_gpu_is_said():
    """The line of docs/cuda.md, which once stopped at --batch."""
    result = run('--device', 'cuda', '--batch', '32')
    assert result.returncode == 2
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith('benchmark.py: --device cuda: ')
    assert 'no GPU on this machine' in message or 'MMADDER_CUDA=1' in message


@pytest.mark.slow
def test_models_are_measured():
    result = run('--models', 'resnet18', '--rounds', '1', '--no-compile')
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines()
             if line.startswith('  ')]
    assert [line.split('  ')[1] for line in lines] == [
        name for batch in (1, 16)
        for name in networks.ResNet18(batch).variants
        if 'torch.compile' not in name]
    for line in lines:
        time, ratio, error = map(float, line.split()[-3:])
        assert time > 0 and ratio > 0 and error < .5, line
