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
COMPILED_OPERATORS = 'mmcv._ext'


def require_dependencies(error):
    """Explain a failed import if a package of the stack is missing.

    Args:
        error (ModuleNotFoundError): raised while mmadder was imported.

    Raises:
        ImportError: lists all that is missing and says how to install it.
    """
    missing = [name for name in DISTRIBUTIONS if _is_missing(name)]
    advice = []
    if missing:
        packages = ' '.join(DISTRIBUTIONS[name] for name in missing)
        advice.append(f'mmadder needs {", ".join(missing)}, not installed '
                      f'here: `pip install {packages}`.')
    if 'mmcv' in missing or error.name == COMPILED_OPERATORS:
        advice.append(
            'mmcv must be the full one with compiled operators (mmcv.ops), '
            'not mmcv-lite, and built with the installed torch: remove '
            'mmcv-lite if it is there, then `pip install '
            f'--no-build-isolation {DISTRIBUTIONS["mmcv"]}`.')
    if advice:
        raise ImportError(' '.join(advice), name=error.name) from error


def _is_missing(name):
    return importlib.util.find_spec(name) is None
