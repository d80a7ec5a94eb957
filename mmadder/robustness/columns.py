"""What is measured: columns of tables and points of curves."""

import dataclasses
from collections.abc import Iterable, Sequence

from mmadder.errors import InputError

from .attacks import EPS, Attack
from .corruptions import CORRUPTIONS, SEVERITIES, Corruption

KINDS = ('white-box', 'detached', 'eval-made', 'transfer', 'adaptive',
         'neighbours', 'benign')
BLINDED = ('detached', 'eval-made')
SHARED = ('neighbours', 'benign')  # of a part of the batch
ON_SCORED = ('white-box', 'detached', 'adaptive')  # as the network answers
OF_BATCHES = (*BLINDED, *SHARED)  # make no sense in mode eval
TABLE = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM')  # of the paper
EPS_SWEEP = tuple(i / 100 for i in range(1, 11))
UNBOUNDED = 'unbounded'
STEPS_SWEEP = (1, 2, 3, 5, 7, 10, 20, 30, 40, 50)


@dataclasses.dataclass(frozen=True)
class Column:
    """One accuracy to measure.

    Args:
        attack: or a corruption; None for clean images.
        kind: what the attacker knows: 'white-box' attacks the model as
            it answers; 'detached' too, but ignores that batch statistics
            depend on the images; 'eval-made' attacks it with tracked
            statistics; 'transfer' attacks another model; 'adaptive' is
            'white-box' in mode eval and 'detached' in the others.
            'neighbours' attacks a share of the batch, and only the others
            are scored; 'benign' scores 'eval-made' images in a batch of
            which a share is clean.
        images: only the first ones.
        note: for the label, such as 'eps=0.06'.
        share: of the batch, in (0, 1), for the last two kinds.
    Raises:
        InputError: unknown kind, or a share of the wrong size or kind.
    """

    attack: Attack | Corruption | None = None
    kind: str = 'white-box'
    images: int | None = None
    note: str = ''
    share: float | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f'kind of a column must be one of {KINDS}, got '
                             f'{self.kind!r}')
        if (self.kind in SHARED) != (self.share is not None):
            raise InputError(f'columns {SHARED} have a share of the batch, '
                             f'and no others; got {self.kind!r} with '
                             f'{self.share}')
        if self.share is not None and not 0 < self.share < 1:
            raise InputError('share is a part of the batch, between 0 and 1; '
                             f'got {self.share}')

    @property
    def label(self) -> str:
        """Name in tables and files."""
        name = 'Clean' if self.attack is None else self.attack.label
        parts = name, self.note, '' if self.kind == 'white-box' else \
            self.kind, '' if self.share is None else f'{self.share:.0%}'
        return ' '.join(part for part in parts if part)


def require_distinct(columns: Sequence[Column]) -> None:
    """Raise InputError if two columns have one label."""
    labels = [column.label for column in columns]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f'two columns are called {label}; tell them '
                             'apart by a note, or measure them into two files')


def table_columns(eps: float = EPS,
                  names: Iterable[str] = TABLE) -> list[Column]:
    """Columns of Table 1: clean and five attacks, or those named."""
    return [Column(), *(Column(Attack(name, eps=eps)) for name in names)]


def attacker_columns(eps: float = EPS) -> list[Column]:
    """PGD by attackers whom batch statistics do not mislead."""
    return [Column(Attack('PGD', eps=eps), kind)
            for kind in BLINDED]


def unbounded_column() -> Column:
    """BIM whose ball is all but the whole range of pixels, on one batch.

    From the images themselves: a random start in such a ball would mislead
    without a gradient. Its steps reach the end of the range.
    """
    return Column(Attack('BIM', eps=254 / 255, alpha=1 / 10, steps=10),
                  images=1, note=UNBOUNDED)


def adaptive_column(eps: float = EPS, steps: int | None = None,
                    images: int | None = None) -> Column:
    """APGD with several losses and restarts: the figure that counts.

    The gradient takes batch statistics as constants.
    """
    return Column(Attack('APGD', eps=eps, steps=steps), 'adaptive', images)


def neighbours_columns(shares: Iterable[float], eps: float = EPS,
                       images: int | None = None) -> list[Column]:
    """The rest of the batch as attacker (PGD, 20 steps) and as shield."""
    return [column for share in shares for column in (
        Column(Attack('PGD', eps=eps, steps=20), 'neighbours', images,
               share=share),
        Column(Attack('PGD', eps=eps), 'benign', images, share=share))]


def corruption_columns(names: Iterable[str] = CORRUPTIONS,
                       images: int | None = None) -> list[Column]:
    """Common corruptions at five severities; they are no attacks."""
    return [Column(Corruption(name, severity), images=images,
                   note=f'severity {severity}')
            for name in names or CORRUPTIONS for severity in SEVERITIES]


def eps_sweep(values: Iterable[float] = EPS_SWEEP, steps: int = 7,
              images: int | None = None) -> list[Column]:
    """Figure 2(a): PGD with growing eps and a step of eps / 7."""
    return [Column(Attack('PGD', eps=eps, alpha=eps / 7, steps=steps),
                   images=images, note=f'eps={eps:g}') for eps in values]


def steps_sweep(values: Iterable[int] = STEPS_SWEEP, eps: float = EPS,
                images: int | None = None) -> list[Column]:
    """Figure 2(b): PGD with growing numbers of steps."""
    return [Column(Attack('PGD', eps=eps, steps=steps), images=images,
                   note='steps') for steps in values]
