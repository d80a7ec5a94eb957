"""Say which of the packages below mmadder is missing.

They are not requirements of the distribution, because each has several:
OpenMMLab's own, and the onedl builds that mmadder is tested with.
"""
import importlib.util

DISTRIBUTIONS = dict(
    torch='torch',
    numpy='numpy',
    mmengine='onedl-mmengine',
    mmcv='onedl-mmcv',
    mmdet='onedl-mmdetection',
    mmpretrain='onedl-mmpretrain')
OPERATORS = 'mmcv._ext'


def _describe_missing():
    """Return what is missing and how to install it, or an empty string."""
    missing = [name for name in DISTRIBUTIONS if not _is_there(name)]
    advice = []
    if missing:
        packages = ' '.join(DISTRIBUTIONS[name] for name in missing)
        advice.append(f'mmadder needs {", ".join(missing)}, not installed '
                      f'here: `pip install {packages}`.')
    if 'mmcv' in missing or not (missing or _is_there(OPERATORS)):
        advice.append(
            'mmcv must be the full one with compiled operators (mmcv.ops), '
            'not mmcv-lite, and built with the installed torch: remove '
            'mmcv-lite if it is there, then `pip install '
            f'--no-build-isolation {DISTRIBUTIONS["mmcv"]}`.')
    return ' '.join(advice)


def _is_there(name):
    return importlib.util.find_spec(name) is not None


MISSING = _describe_missing()
