"""What the import says when the stack below is incomplete."""
import pathlib
import subprocess
import sys

import mmcv
import mmengine.registry

import mmadder

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
            ('METRICS', ('CrossEntropyMetric', ))):
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
