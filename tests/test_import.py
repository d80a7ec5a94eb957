"""What the import says when the stack below is incomplete."""
import os
import pathlib
import subprocess
import sys
import warnings

import mmcv
import mmengine.registry
import pytest
from mmengine.logging import print_log

import mmadder
from mmadder.dependencies import PRINTED, WARNED, quiet_imports

ROOT = pathlib.Path(mmadder.__file__).parents[1]
SITE_PACKAGES = pathlib.Path(mmcv.__file__).parents[1]


def import_mmadder(*paths):
    """Import in a Python that knows only the given folders."""
    script = f'import sys; sys.path[:0] = {[str(p) for p in paths]!r}\n'
    return subprocess.run(
        [sys.executable, '-I', '-S', '-c', script + 'import mmadder'],
        capture_output=True, text=True)


def link(source, target, leave_out):
    """Fill a folder with links to all of another but some."""
    target.mkdir()
    for path in source.iterdir():
        if not path.name.startswith(leave_out):
            (target / path.name).symlink_to(path)


def test_import_fills_the_root_registries():
    for registry, names in (
            ('MODELS', ('AWN', 'WS', 'AdderCSPDarknet', 'AdderConv2d',
                        'AdderFPN', 'AdderResNet', 'AdderResNetCIFAR',
                        'BNLogitsHead')),
            ('HOOKS', ('AdderClipGradHook', 'CheckpointCheckHook',
                       'LossScaleHook', 'RobustInferenceHook')),
            ('DATASETS', ('CIFAR10Images', 'CheckedXMLDataset')),
            ('TRANSFORMS', ('CheckedLoadImageFromFile', ))):
        for name in names:
            assert name in getattr(mmengine.registry, registry).module_dict


def test_all_missing_packages_are_named():
    result = import_mmadder(ROOT)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith(
        'ImportError: mmadder needs torch, numpy, mmengine, mmcv, mmdet, '
        'mmpretrain, not installed here: `pip install torch numpy '
        'onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmpretrain`.')
    assert 'not mmcv-lite' in message


def test_one_missing_package_is_named(tmp_path):
    link(SITE_PACKAGES, tmp_path / 'site', ('mmpretrain', ))
    message = import_mmadder(ROOT, tmp_path / 'site').stderr.splitlines()[-1]
    assert message == (
        'ImportError: mmadder needs mmpretrain, not installed here: '
        '`pip install onedl-mmpretrain`.')


def test_mmcv_without_operators_is_refused(tmp_path):
    site = tmp_path / 'site'
    link(SITE_PACKAGES, site, ('mmcv', ))
    link(SITE_PACKAGES / 'mmcv', site / 'mmcv', ('_ext', ))
    message = import_mmadder(ROOT, site).stderr.splitlines()[-1]
    assert message.startswith(
        'ImportError: mmcv must be the full one with compiled operators')
    assert '`pip install --no-build-isolation onedl-mmcv`' in message


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


def test_other_notes_are_heard(capsys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        with quiet_imports():
            print_log(f'{PRINTED}. Skipping.')
            print_log('Could not import another')
            warnings.warn(f'{WARNED}, metrics', stacklevel=1)
            warnings.warn('pycocotools is not installed', stacklevel=1)
    assert [str(warning.message) for warning in caught] == [
        'pycocotools is not installed']
    assert capsys.readouterr().out == 'Could not import another\n'
    print_log(PRINTED)
    assert capsys.readouterr().out == f'{PRINTED}\n'
