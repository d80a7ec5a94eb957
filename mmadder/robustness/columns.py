"""What is measured: columns of tables and points of curves."""

import dataclasses

from .attacks import EPS, Attack

BLINDED = ('detached', 'eval-made')  # make no sense in mode eval
TABLE = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM')  # of the paper


@dataclasses.dataclass(frozen=True)
class Column:
    """One accuracy to measure.

    Args:
        attack (Attack, optional): None for clean images.
        kind (str): what the attacker knows: 'white-box' attacks the model as
            it answers; 'detached' too, but ignores that batch statistics
            depend on the images; 'eval-made' attacks it with tracked
            statistics; 'transfer' attacks another model.
        images (int, optional): only the first ones.
        note (str): for the label, such as 'eps=0.06'.
    """

    attack: Attack = None
    kind: str = 'white-box'
    images: int = None
    note: str = ''

    @property
    def label(self):
        """Name in tables and files."""
        name = 'Clean' if self.attack is None else self.attack.label
        parts = name, self.note, '' if self.kind == 'white-box' else self.kind
        return ' '.join(part for part in parts if part)


def table_columns(eps=EPS, names=TABLE):
    """Columns of Table 1: clean and five attacks, or those named."""
    return [Column(), *(Column(Attack(name, eps=eps)) for name in names)]


def attacker_columns(eps=EPS):
    """PGD by attackers whom batch statistics do not mislead."""
    return [Column(Attack('PGD', eps=eps), kind)
            for kind in BLINDED]


def eps_sweep(values, steps=7):
    """Figure 2(a): PGD with growing eps and a step of eps / 7."""
    return [Column(Attack('PGD', eps=eps, alpha=eps / 7, steps=steps),
                   note=f'eps={eps:g}') for eps in values]


def steps_sweep(values, eps=EPS):
    """Figure 2(b): PGD with growing numbers of steps."""
    return [Column(Attack('PGD', eps=eps, steps=steps), note='steps')
            for steps in values]
