"""What is left to measure, and which jobs can share adversarial images."""
import collections
import dataclasses
from collections.abc import Iterable

from .attacks import Attack
from .columns import Column
from .corruptions import Corruption


@dataclasses.dataclass(frozen=True)
class Job:
    """One batch in one cell of a table.

    Attributes:
        batch: number of the batch.
        mode: how the network answers: 'eval', 'R', 'r' or 'max'.
        column: attack and attacker, or clean images.
    """
    batch: int
    mode: str
    column: Column


@dataclasses.dataclass(frozen=True)
class Attacker:
    """Whom an attack looks at, and how: equal ones make equal images.

    Attributes:
        attack: or corruption; of an iterated attack the one with a single
            step, since more steps only go on from there.
        mode: of the attacked network while it is attacked.
        detached: batch statistics count as constants.
        transfer: another network is attacked instead, in mode eval.
    """
    attack: Attack | Corruption
    mode: str
    detached: bool = False
    transfer: bool = False

    @classmethod
    def of(cls, job: Job) -> 'Attacker':
        """Return who makes the images of a job whose column has an attack."""
        kind, attack = job.column.kind, job.column.attack
        if attack.iterated:
            attack = dataclasses.replace(attack, steps=1)
        if kind == 'transfer':
            return cls(attack, 'eval', transfer=True)
        if isinstance(attack, Corruption):  # looks at no model
            return cls(attack, 'eval')
        if kind in ('eval-made', 'benign') or job.mode == 'eval':
            return cls(attack, 'eval')
        return cls(attack, job.mode, detached=kind in ('detached', 'adaptive'))


def steps_by_attacker(jobs: Iterable[Job]
                      ) -> dict[tuple[int, Attacker], set[int]]:
    """Return which numbers of steps each attacker needs of each batch.

    One run with the most steps passes all others on its way. Attacks on
    neighbours share nothing, and are left out.
    """
    steps = collections.defaultdict(set)
    for job in jobs:
        if job.column.attack and job.column.kind != 'neighbours':
            steps[job.batch, Attacker.of(job)].add(job.column.attack.steps)
    return steps
