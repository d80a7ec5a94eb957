"""`make test-gpu` on a machine without a GPU."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / 'tools' / 'test_gpu.py'
without_gpu = pytest.mark.skipif(torch.cuda.is_available(),
                                 reason='for want of a GPU')


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *arguments],
                          capture_output=True, text=True)


@without_gpu
def test_what_it_needs_is_said():
    result = run()
    assert result.returncode == 2
    message, = result.stderr.splitlines()
    assert message.startswith('test_gpu.py: no GPU was found. This needs')
    assert message.endswith('--rehearse runs all of it without one')


def test_a_rehearsal_is_no_measurement():
    result = run('--rehearse')
    assert result.returncode == 2
    assert '--rehearse needs --out' in result.stderr


@pytest.mark.slow
@without_gpu
def test_rehearsal_runs_every_step(tmp_path):
    """A typing error must not wait for a GPU."""
    out = tmp_path / 'new' / 'rehearsal.json'
    result = run('--rehearse', '--out', out)
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(out.read_text())
    assert 'figures mean nothing' in report['machine']['rehearsal']
    steps = report['steps']
    assert list(steps) == ['tests', 'networks', 'operators']
    assert steps['tests']['skipped'] == steps['tests']['tests'] > 200
    assert {row['network'] for row in steps['networks']['figures']} == {
        'ResNet-18', 'ResNet-20', 'Faster R-CNN R18-FPN'}
    assert set(steps['operators']['figures']) == {'without TF32', 'with TF32'}


def test_failed_steps_are_reported(tmp_path, monkeypatch):
    """One fails, the others run, and the command fails at the end."""
    broken = tmp_path / 'tools' / 'test_gpu.py'
    broken.parent.mkdir()
    broken.write_text(TOOL.read_text())  # beside it is no benchmark.py
    result = subprocess.run(
        [sys.executable, broken, '--rehearse', '--out', tmp_path / 'out.json'],
        capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'FAILED: tests, networks, operators')
    steps = json.loads((tmp_path / 'out.json').read_text())['steps']
    assert all(step['exit'] for step in steps.values())
