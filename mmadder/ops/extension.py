"""Loads the compiled operators once.

Importing mmadder works without them, so that configs, data tools and
documentation do; a call of an operator then says how to build them.
"""
from pathlib import Path

import torch

# By its full name: of several, Python would prefer one that an older version
# left behind, built for one Python only.
BINARY = Path(__file__).parents[1] / '_C.abi3.so'
NEWEST_OPERATOR = 'adder_conv2d_output_size'
NEWEST_CLASS = 'IntegerPlan'
_BUILD = ('build it in the source folder with '
          '`pip install -e . --no-build-isolation` '
          '(needs a C++17 compiler and the torch that will run it)')


def _load() -> str | None:
    """Load the extension; return None or the reason why it is missing."""
    if not BINARY.exists():
        return f'mmadder/{BINARY.name} is not there'
    try:
        torch.ops.load_library(BINARY)
    except OSError as error:  # compiled for another torch or machine
        return str(error)
    if not _has_newest():
        return f'mmadder/{BINARY.name} was compiled from older sources'
    return None


def _has_newest():
    try:
        getattr(torch.classes.mmadder, NEWEST_CLASS)
    except RuntimeError:
        return False
    return hasattr(torch.ops.mmadder, NEWEST_OPERATOR)


_missing = _load()


def require_extension() -> None:
    """Raise RuntimeError with advice if the operators are not loaded."""
    if _missing is not None:
        raise RuntimeError(
            f"mmadder's compiled operators are not available: {_missing}; "
            f'{_BUILD}.')


def is_built() -> bool:
    """Whether the compiled operators are loaded."""
    return _missing is None


def kernel_devices() -> frozenset[str]:
    """Types of the devices that the loaded operators have kernels for."""
    if not is_built():
        return frozenset()
    return frozenset(
        device for device in ('cpu', 'cuda')
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            'mmadder::adder_conv2d', device.upper()))
