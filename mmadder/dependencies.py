"""Say which of the packages below mmadder is missing, and import quietly.

They are not requirements of the distribution, because each has several:
OpenMMLab's own, and the onedl builds that mmadder is tested with.
"""
import contextlib
import importlib.util
import warnings
from collections.abc import Iterator

DISTRIBUTIONS = dict(
    torch='torch',
    numpy='numpy',
    mmengine='onedl-mmengine',
    mmcv='onedl-mmcv',
    mmdet='onedl-mmdetection',
    mmpretrain='onedl-mmpretrain')
OPERATORS = 'mmcv._ext'
# What MMDetection and MMPretrain say, while they are imported, about optional
# packages that mmadder does not use.
PRINTED = 'Could not import OneDL'
WARNED = 'faster_coco_eval is not installed'


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


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop the two notes above from the imports in the block, no others."""
    from mmengine.logging import logger

    def print_others(message, *args, **kwargs):
        if not str(message).startswith(PRINTED):
            print(message, *args, **kwargs)

    # Stays: restoring all filters would undo those that packages set.
    warnings.filterwarnings('ignore', WARNED, UserWarning)
    logger.print = print_others  # print_log calls it where no logger is given
    try:
        yield
    finally:
        del logger.print


MISSING = _describe_missing()
