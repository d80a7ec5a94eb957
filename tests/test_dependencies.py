"""What the import says when the stack below is incomplete, and only then."""
import pathlib
import subprocess
import sys
import warnings

import mmcv
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
