"""Adversarial attacks of torchattacks, with every result checked.

Budgets and steps are those of "Towards Stable and Robust AdderNets" (NeurIPS
2021), section 5.1: an Linf ball of 8/255 around pixels in [0, 1], steps of
2/255. PGD starts at a uniform point of the ball, BIM at the image, MIM has
momentum 1, RFGSM starts at a random sign step and is projected.
"""

import contextlib
import dataclasses
import importlib.util
import warnings

import torch
from torch import nn
from torch.nn import functional

from mmadder.errors import InputError

from .inference import RobustInferenceWarning

EPS, ALPHA = 8 / 255, 2 / 255
# The paper's; those of Square are its queries.
STEPS = dict(FGSM=1, BIM=7, PGD=7, MIM=5, RFGSM=5, LegacyRFGSM=5,
             Square=5000, AutoAttack=None)
SHORT = ('FGSM', 'Square', 'AutoAttack')  # without the steps in their label
ROUNDING = 1e-6  # float32 pixels may exceed the ball by this


class BudgetError(RuntimeError):
    """An attack left its ball or the pixel range: its figure is void."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack by name; call it with a model and images.

    Args:
        name (str): one of ``STEPS``. 'LegacyRFGSM' is the unprojected RFGSM
            of old torchattacks versions: it leaves the ball.
        eps (float): radius in [0, 1] pixels, below 1.
        alpha (float): step in the same unit. FGSM, Square and AutoAttack
            have none.
        steps (int, optional): default: the paper's.
    Raises:
        InputError: unknown name, or numbers of the wrong unit.
    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
        >>> attack = Attack('PGD')
        >>> attack.label, tuple(attack(model, images, labels).shape)
        ('PGD7', (2, 3, 8, 8))
    """

    name: str
    eps: float = EPS
    alpha: float = ALPHA
    steps: int = None

    def __post_init__(self):
        if self.name not in STEPS:
            raise InputError(f'unknown attack {self.name!r}, expected one of '
                             f'{tuple(STEPS)}')
        for name in ('eps', 'alpha'):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(
                    f'{name} is in units of pixels in [0, 1], such as 8/255, '
                    f'and must be below 1; got {value}')
        if self.steps is None:
            object.__setattr__(self, 'steps', STEPS[self.name])
        if self.steps is not None and self.steps < 1:
            raise InputError(f'steps must be at least 1, got {self.steps}')

    @property
    def label(self):
        """Name with the number of steps, as in the paper's tables."""
        return self.name if self.name in SHORT else f'{self.name}{self.steps}'

    @property
    def projected(self):
        return self.name != 'LegacyRFGSM'

    def __call__(self, model, images, labels, seed=0):
        """Return adversarial images.

        Runs the model in evaluation mode and leaves it as it was, also after
        an exception. The global random state is not touched.

        Args:
            model (nn.Module): (N, C, H, W) pixels to (N, classes) logits;
                normalization is inside, as in :class:`PixelClassifier`.
            images (Tensor): (N, C, H, W), float, in [0, 1].
            labels (Tensor): (N,), int64.
            seed (int): of the attack's random numbers.
        Returns:
            Tensor: within eps of the images and in [0, 1], except for
            LegacyRFGSM, which is in [0, 1] only.
        Raises:
            InputError: images out of range, or no logits.
            BudgetError: the attack broke its budget.
        """
        require_pixels(images)
        with prepared(model, seed):
            require_logits(model, images, labels)
            # Some attacks divide by eps.
            adversarial = images.clone() if self.eps == 0 else \
                self._build(model, images, labels, seed)(images, labels)
        adversarial = adversarial.detach()
        check_budget(images, adversarial, self.eps if self.projected else 1.,
                     self.label)
        return adversarial

    def _build(self, model, images, labels, seed):
        torchattacks = import_torchattacks()
        ball = dict(eps=self.eps, alpha=self.alpha, steps=self.steps)
        if self.name == 'FGSM':
            return torchattacks.FGSM(model, eps=self.eps)
        if self.name in ('BIM', 'PGD', 'RFGSM'):
            return getattr(torchattacks, self.name)(model, **ball)
        if self.name == 'MIM':
            return torchattacks.MIFGSM(model, decay=1.0, **ball)
        if self.name == 'LegacyRFGSM':
            return LegacyRFGSM(model, **ball)
        if self.name == 'Square':
            return torchattacks.Square(
                model, eps=self.eps, n_queries=self.steps, seed=seed)
        with torch.no_grad():
            classes = model(images).shape[1]
        if classes < 4:
            raise InputError('AutoAttack needs at least 4 classes, the model '
                             f'has {classes}')
        return torchattacks.AutoAttack(
            model, eps=self.eps, n_classes=classes, seed=seed)


class LegacyRFGSM:
    """RFGSM as in torchattacks before 3: steps of eps - alpha, no ball.

    After n steps a pixel may have moved by alpha + n (eps - alpha), with the
    paper's numbers four times eps. Its column RFGSM5, far below PGD7 at an
    equal budget, may have been made so.
    """

    def __init__(self, model, eps, alpha, steps):
        self.model, self.steps = model, steps
        self.alpha, self.step = alpha, eps - alpha

    def __call__(self, images, labels):
        moved = images + self.alpha * torch.randn_like(images).sign()
        moved = moved.clamp(0, 1)
        for _ in range(self.steps):
            moved.requires_grad_()
            loss = functional.cross_entropy(self.model(moved), labels)
            gradient, = torch.autograd.grad(loss, moved)
            moved = moved.detach() + self.step * gradient.sign()
            moved = moved.clamp(0, 1)
        return moved


def import_torchattacks():
    """Return the library.

    Raises:
        InputError: it is not installed; the message says how.
    """
    if importlib.util.find_spec('torchattacks') is None:
        raise InputError(
            'attacks need torchattacks: `pip install scipy tqdm` and `pip '
            'install --no-deps torchattacks==3.5.1` (its metadata pins an '
            'old requests, which it does not import)')
    import torchattacks
    return torchattacks


def check_budget(images, adversarial, eps, name='the attack'):
    """Return the largest change of a pixel.

    Raises:
        BudgetError: it is more than eps (+ 1e-6), a pixel is outside [0, 1],
            or is NaN.
    """
    if adversarial.isnan().any():
        raise BudgetError(
            f'{name} gave NaN; MIM does where the gradient of an image is '
            'exactly zero')
    change = (adversarial - images).abs().max().item() if len(images) else 0.
    if change > eps + ROUNDING:
        raise BudgetError(f'{name} moved a pixel by {change:.5f}, more than '
                          f'eps = {eps:.5f}')
    low, high = adversarial.aminmax() if len(images) else (0, 1)
    if low < 0 or high > 1:
        raise BudgetError(f'{name} left the pixel range [0, 1]: [{low:.4f}, '
                          f'{high:.4f}]')
    return change


def require_pixels(images):
    """Raise InputError unless images are (N, C, H, W) floats in [0, 1]."""
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError('images must be (N, C, H, W) of a floating type, '
                         f'got {tuple(images.shape)}, {images.dtype}')
    low, high = images.aminmax() if images.numel() else (0, 1)
    if not (low >= 0 and high <= 1):
        raise InputError(
            f'images must be pixels in [0, 1], got [{low:.3f}, {high:.3f}]; '
            'divide 8-bit pixels by 255, and let the model normalize')


def require_logits(model, images, labels):
    """Raise InputError unless the model gives a score per class."""
    with torch.no_grad():
        logits = model(images)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(
            logits) != len(images):
        found = tuple(logits.shape) if isinstance(
            logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f'attacks need a model that returns logits (N, classes), '
            f'{type(model).__name__} returns {found}; wrap a classifier of '
            'MMPretrain in PixelClassifier')
    if len(labels) != len(images) or len(labels) and not (
            0 <= labels.min() and labels.max() < logits.shape[1]):
        raise InputError(
            f'labels must be {len(images)} numbers below the '
            f'{logits.shape[1]} classes of the model, got {labels.tolist()}')


class PixelClassifier(nn.Module):
    """Logits of MMPretrain's classifier from pixels in [0, 1].

    Args:
        model (nn.Module): an ImageClassifier whose data preprocessor does
            nothing but exchange channels and normalize.
    Input:
        (N, 3, H, W), pixels in [0, 1]; channels in the order of the
        preprocessor's ``mean``.
    Returns:
        Tensor: (N, classes), logits.
    """

    def __init__(self, model):
        super().__init__()
        preprocessor = model.data_preprocessor
        if getattr(preprocessor, 'pad_size_divisor', 1) > 1:
            raise InputError('attacks need a data preprocessor that does not '
                             'pad: set pad_size_divisor=1')
        self.model = model
        mean = getattr(preprocessor, 'mean', torch.zeros(1, 1, 1))
        std = getattr(preprocessor, 'std', torch.ones(1, 1, 1))
        self.register_buffer('mean', mean / 255, persistent=False)
        self.register_buffer('std', std / 255, persistent=False)
        self.to_rgb = getattr(preprocessor, 'to_rgb', False)

    def forward(self, images):
        return self.model((images - self.mean) / self.std, mode='tensor')

    def from_uint8(self, images):
        """Return what a dataset gives as input of :meth:`forward`.

        Args:
            images (Tensor): (N, 3, H, W), uint8, channels as loaded.
        """
        images = images.flip(1) if self.to_rgb else images
        return images.float() / 255


@contextlib.contextmanager
def prepared(model, seed):
    """Evaluation mode, no gradients of weights, random numbers apart."""
    training = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(list(devices)), warnings.catch_warnings():
            # Some attacks go on with the images that still resist.
            warnings.simplefilter('ignore', RobustInferenceWarning)
            torch.manual_seed(seed)
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
        for module, mode in training.items():
            module.training = mode
