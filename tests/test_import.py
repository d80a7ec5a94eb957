"""What importing mmadder does, and what it does not say."""
import os
import pathlib
import subprocess
import sys

import mmengine.registry
import pytest

import mmadder

ROOT = pathlib.Path(mmadder.__file__).parents[1]


def test_import_fills_the_root_registries():
    for registry, names in (
            ('MODELS', ('AWN', 'WS', 'AdderCSPDarknet', 'AdderConv2d',
                        'AdderFPN', 'AdderResNet', 'AdderResNetCIFAR',
                        'BNLogitsHead')),
            ('HOOKS', ('AdderCheckHook', 'AdderClipGradHook',
                       'CheckpointCheckHook', 'LossScaleHook',
                       'RobustInferenceHook')),
            ('DATASETS', ('CIFAR10Images', 'CheckedXMLDataset')),
            ('METRICS', ('CrossEntropyMetric', ))):
        for name in names:
            assert name in getattr(mmengine.registry, registry).module_dict


@pytest.mark.parametrize('command, begins', [
    (('-c', 'import mmadder'), ''),
    ((ROOT / 'tools' / 'train.py', '--help'), 'usage: train.py'),
    ((ROOT / 'tools' / 'test.py', '--help'), 'usage: test.py'),
    ((ROOT / 'tools' / 'make_digits.py', '--help'), 'usage: make_digits.py'),
    ((ROOT / 'tools' / 'convert_checkpoint.py', '--help'), 'usage: convert')])
def test_dependencies_are_quiet(command, begins):
    """About what a user can do nothing about, and needs nothing of."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    environment.pop('PYTHONWARNINGS', None)
    result = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True,
        env=environment)
    assert result.returncode == 0
    assert result.stderr == ''
    assert result.stdout.startswith(begins)
    assert bool(result.stdout) == bool(begins)
