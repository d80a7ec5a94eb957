"""Common corruptions: noise, blur, compression, contrast.

Those of "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (arXiv:1903.12261) at five severities, as the package
imagecorruptions makes them, which MMDetection's ``Corrupt`` uses too.
"""

import contextlib
import dataclasses
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mmadder.errors import InputError

from .pixels import require_pixels

if TYPE_CHECKING:  # optional
    from types import ModuleType

# One of each family: noise, blur, digital, weather and light.
CORRUPTIONS = ('gaussian_noise', 'defocus_blur', 'jpeg_compression',
               'contrast')
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32  # pixels of a side


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A corruption by name; in a column it stands in place of an attack.

    Args:
        name: of imagecorruptions, such as those of ``CORRUPTIONS``.
        severity: 1 to 5.
    Raises:
        InputError: unknown name or severity, or the package is missing.
    Example:
        >>> noise = Corruption('gaussian_noise', 3)
        >>> noise.label, noise(torch.rand(2, 3, 32, 32)).shape
        ('gaussian_noise', torch.Size([2, 3, 32, 32]))
    """

    name: str
    severity: int

    # What an attack has.
    steps = 1
    iterated = False

    def __post_init__(self):
        names = import_imagecorruptions().get_corruption_names('all')
        if self.name not in names:
            raise InputError(f'unknown corruption {self.name!r}, expected '
                             f'one of {tuple(names)}')
        if self.severity not in SEVERITIES:
            raise InputError('severity of a corruption must be from 1 to 5, '
                             f'got {self.severity}')

    @property
    def label(self) -> str:
        return self.name

    def __call__(self, images: Tensor, seed: int = 0) -> Tensor:
        """Return corrupted images, of 8 bits as a file has them.

        Args:
            images: (N, 3, H, W), float, in [0, 1], RGB; 32 pixels or more.
            seed: of random numbers; the global state of NumPy is not
                touched.
        Returns:
            (N, 3, H, W), in [0, 1].
        Raises:
            InputError: images out of range, or too small.
        """
        require_pixels(images)
        if images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
            raise InputError(
                f'corruptions need RGB images of {SMALLEST} pixels or more, '
                f'got {tuple(images.shape)}')
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu()
        with numpy_seed(seed):
            made = [self._corrupt(image, seed + i)
                    for i, image in enumerate(pixels.numpy())]
        made = np.stack(made) if made else pixels.numpy()
        return torch.from_numpy(made).permute(0, 3, 1, 2).to(images) / 255

    def prefixes(self, model: nn.Module, images: Tensor, labels: Any,
                 steps: Iterable[int], seed: int = 0,
                 path: Any = None) -> dict[int, Tensor]:
        """Do what an attack does, without looking at the model."""
        return {self.steps: self(images, seed)}

    def _corrupt(self, image, seed):
        library = import_imagecorruptions()
        function = library.corruption_dict[self.name]
        # Some do not listen to NumPy's global state.
        seeded = 'seed' in inspect.signature(function).parameters
        return library.corrupt(image, self.severity, self.name,
                               **(dict(seed=seed) if seeded else {}))


@contextlib.contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global random numbers, and set them back."""
    state = np.random.get_state()
    np.random.seed(seed % 2 ** 32)
    try:
        yield
    finally:
        np.random.set_state(state)


def import_imagecorruptions() -> 'ModuleType':
    """Return the package.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec('imagecorruptions') is None:
        raise InputError('corruptions need imagecorruptions: `pip install '
                         'imagecorruptions-imaug`')
    import imagecorruptions
    return imagecorruptions
