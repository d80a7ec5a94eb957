"""Adversarial attacks of torchattacks, with every result checked.

Budgets and steps are those of "Towards Stable and Robust AdderNets" (NeurIPS
2021), section 5.1: an Linf ball of 8/255 around pixels in [0, 1], steps of
2/255. PGD starts at a uniform point of the ball, BIM at the image, MIM has
momentum 1, RFGSM starts at a random sign step and is projected.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmadder.errors import InputError

from .adaptive import LOSSES, RESTARTS, strongest_batch, whole_batch
from .batch_statistics import RobustInferenceWarning
from .pixels import require_logits, require_pixels

EPS, ALPHA = 8 / 255, 2 / 255
# The paper's, and those of AutoAttack's paper; Square's are its queries, and
# APGD has so many with each loss and at each restart.
STEPS = dict(FGSM=1, BIM=7, PGD=7, MIM=5, RFGSM=5, LegacyRFGSM=5,
             Square=5000, APGD=50, AutoAttack=100)
SHORT = ('FGSM', 'Square', 'AutoAttack')  # without the steps in their label
ROUNDING = 1e-6  # float32 pixels may exceed the ball by this


class BudgetError(RuntimeError):
    """An attack left its ball or the pixel range: its figure is void."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack by name; call it with a model and images.

    Args:
        name: one of ``STEPS``. 'LegacyRFGSM' is the unprojected RFGSM
            of old torchattacks versions: it leaves the ball. 'APGD' has
            two losses and two restarts, see :mod:`.adaptive`.
        eps: radius in [0, 1] pixels, below 1.
        alpha: step in the same unit. FGSM, Square, APGD and AutoAttack have
            none.
        steps: default: the paper's.
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
    steps: int | None = None

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
        if self.steps < 1:
            raise InputError(f'steps must be at least 1, got {self.steps}')

    @property
    def label(self) -> str:
        """Name with the number of steps, as in the paper's tables."""
        return self.name if self.name in SHORT else f'{self.name}{self.steps}'

    @property
    def iterated(self) -> bool:
        """Whether its images after n steps are those of n steps at all."""
        return self.name in ('BIM', 'PGD', 'MIM', 'RFGSM', 'LegacyRFGSM')

    @property
    def projected(self) -> bool:
        """Whether its images stay in the ball."""
        return self.name != 'LegacyRFGSM'

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor,
                 seed: int = 0) -> Tensor:
        """Return adversarial images.

        Runs the model in evaluation mode and leaves it as it was, also after
        an exception. No gradients of weights are computed. The global random
        state is not touched.

        Args:
            model: (N, C, H, W) pixels to (N, classes) logits; normalization
                is inside, as in :class:`PixelClassifier`.
            images: (N, C, H, W), float, in [0, 1].
            labels: (N,), int64.
            seed: of the attack's random numbers.
        Returns:
            Images within eps of the given ones and in [0, 1]; those of
            LegacyRFGSM are in [0, 1] only.
        Raises:
            InputError: images out of range, or no logits.
            BudgetError: the attack broke its budget.
        """
        return self.prefixes(model, images, labels, (), seed)[self.steps]

    def prefixes(self, model: nn.Module, images: Tensor, labels: Tensor,
                 steps: Iterable[int], seed: int = 0,
                 path: list[Tensor] | None = None) -> dict[int, Tensor]:
        """Return what attacks of fewer steps would, from one run.

        Args:
            model, images, labels, seed: as above.
            steps: numbers of steps, from 1, below ``self.steps``; none
                unless the attack is :attr:`iterated`.
            path: gets, of an iterated attack, the logits (N, classes) of the
                images after 0, 1, ... steps, whole batches each. For the
                last ones the model is asked once more.
        Returns:
            Number of steps, ``self.steps`` among them, to adversarial images.
        """
        steps = set(steps)
        if steps and not self.iterated:
            raise InputError(f'{self.name} with fewer steps is another attack')
        if not steps <= set(range(1, self.steps)):
            raise InputError('steps of shorter attacks must be from 1 to '
                             f'{self.steps - 1}, got {sorted(steps)}')
        if not self.iterated:
            path = None
        require_pixels(images)
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise InputError(f'labels must be {len(images)} numbers of int64, '
                             f'got {tuple(labels.shape)}, {labels.dtype}')
        if torch.is_inference_mode_enabled():
            raise InputError('attacks need gradients: call them outside of '
                             'torch.inference_mode()')
        if not self.eps:  # by which some attacks divide
            return {count: images.clone() for count in {*steps, self.steps}}
        with prepared(model, seed):
            run = self._build(model, images, labels, seed)
            with watched(model, labels, steps, path) as found, \
                    never_zero(model) if self.name == 'MIM' else \
                    contextlib.nullcontext():
                found[self.steps] = run(images, labels).detach()
                if path is not None:
                    with torch.no_grad():
                        model(found[self.steps])
        for adversarial in found.values():
            check_budget(images, adversarial,
                         self.eps if self.projected else 1., self.label)
        return found

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
        classes = self._count_classes(
            model, images, labels, 3 if self.name == 'APGD' else 4)
        if self.name == 'AutoAttack':
            return auto_attack(model, self.eps, self.steps, classes, seed)
        runs = [whole_batch(torchattacks.APGD(
            model, eps=self.eps, steps=self.steps, loss=loss))
            for _ in range(RESTARTS) for loss in LOSSES]
        return functools.partial(strongest_batch, model, runs)

    def _count_classes(self, model, images, labels, least):
        with torch.no_grad():
            logits = model(images[:2])
        require_logits(model, logits, labels[:2])
        classes = logits.shape[1]
        if classes < least:
            raise InputError(f'{self.name} needs at least {least} classes, '
                             f'the model has {classes}')
        return classes


def auto_attack(model, eps, steps, classes, seed):
    """The standard version of AutoAttack (arXiv:2003.01690).

    torchattacks' own has 10 steps in place of the paper's 100.
    """
    library = import_torchattacks()
    ball = dict(norm='Linf', eps=eps, seed=seed)
    return library.MultiAttack([
        library.APGD(model, steps=steps, loss='ce', **ball),
        library.APGDT(model, steps=steps, n_classes=classes, **ball),
        library.FAB(model, steps=steps, multi_targeted=True,
                    n_classes=classes, **ball),
        library.Square(model, n_queries=STEPS['Square'], **ball)])


@contextlib.contextmanager
def watched(model, labels, steps, path):
    """Check the logits that a model gives first; keep some of its inputs.

    Args:
        steps (set[int]): which inputs, counted from 0: of an iterated attack
            they are the images after so many steps.
        path (list[Tensor] | None): gets all logits.
    Yields:
        dict[int, Tensor]: to be filled.
    """
    kept = {}
    calls = itertools.count()

    def watch(module, inputs, output):
        call = next(calls)
        if call == 0:
            require_logits(module, output, labels)
        if call in steps:
            kept[call] = inputs[0].detach()
        if path is not None:
            path.append(output.detach())

    handle = model.register_forward_hook(watch)
    try:
        yield kept
    finally:
        handle.remove()


@contextlib.contextmanager
def never_zero(model):
    """Keep images whose gradient is exactly zero from becoming NaN.

    torchattacks' MIM divides a gradient by its mean. Such an image gets a
    gradient at one pixel, which moves within the ball; the others are not
    touched.
    """
    def nudge(gradient):
        vanished = (gradient.flatten(1) == 0).all(1)
        gradient = gradient.clone()
        gradient[vanished, 0, 0, 0] = torch.finfo(gradient.dtype).eps
        return gradient

    def watch(module, inputs):
        if inputs[0].requires_grad:
            inputs[0].register_hook(nudge)

    handle = model.register_forward_pre_hook(watch)
    try:
        yield
    finally:
        handle.remove()


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


def check_budget(images: Tensor, adversarial: Tensor, eps: float,
                 name: str = 'the attack') -> float:
    """Return the largest change of a pixel.

    Raises:
        BudgetError: it is more than eps (+ 1e-6), a pixel is outside [0, 1],
            or is NaN.
    """
    if adversarial.isnan().any():
        raise BudgetError(f'{name} gave NaN')
    change = (adversarial - images).abs().max().item() if len(images) else 0.
    if change > eps + ROUNDING:
        raise BudgetError(f'{name} moved a pixel by {change:.5f}, more than '
                          f'eps = {eps:.5f}')
    low, high = adversarial.aminmax() if len(images) else (0, 1)
    if low < 0 or high > 1:
        raise BudgetError(f'{name} left the pixel range [0, 1]: [{low:.4f}, '
                          f'{high:.4f}]')
    return change


@contextlib.contextmanager
def prepared(model, seed):
    """Evaluation mode, gradients of images only, random numbers apart."""
    training = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    devices = {p.device for p in model.parameters() if p.is_cuda}
    try:
        model.eval()
        for parameter in trained:
            parameter.requires_grad_(False)
        with torch.enable_grad(), torch.random.fork_rng(list(devices)), \
                warnings.catch_warnings():
            # Some attacks go on with the images that still resist.
            warnings.simplefilter('ignore', RobustInferenceWarning)
            torch.manual_seed(seed)
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
        for module, mode in training.items():
            module.training = mode
