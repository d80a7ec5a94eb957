"""Figures under attack, batch by batch, so that a run can go on later."""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmadder.errors import InputError
from mmadder.files import require_writable, write_json

from .attacks import Attack, check_budget, prepared
from .batch_statistics import ROBUST_MODES, robust_inference
from .checks import (
    check_features,
    check_paths,
    check_row,
    check_sweeps,
    check_unbounded,
    count_path,
)
from .columns import OF_BATCHES, ON_SCORED, Column, require_distinct
from .features import norm_inputs
from .jobs import Attacker, Job, steps_by_attacker
from .neighbours import attack_neighbours, surround
from .results import DATA_HINT, read_results

MODES = ('eval', *ROBUST_MODES)


class BaseEvaluation(abc.ABC):
    """Measures columns in modes, and keeps them in a JSON file as they come.

    Batch by batch, all modes and columns, so that a run cut short has whole
    rows of fewer images, and images that several columns need are made once:
    those of PGD with 1 to 50 steps, or those made in mode eval for all modes.

    Derived classes say what a batch is and how answers become a figure: the
    abstract methods at the end.

    Args:
        network: answers images; what is attacked.
        batches: one entry per batch.
        settings: what identifies the run; must equal those of an existing
            file. 'seed' is that of the attacks: batch i has the same random
            numbers in every run. 'include_logit_bn' is the scope of robust
            inference.
        source: network that 'transfer' attacks.
        path: results are read from and written to it after every batch.
    Raises:
        InputError: the file is of another run, or cannot be written.
    """

    metric: str  # key of a column's figure in the results

    def __init__(self, network: nn.Module, batches: Sequence, settings: dict,
                 source: nn.Module | None = None,
                 path: str | Path | None = None):
        self.network, self.batches, self.source = network, batches, source
        self.path = path and Path(path)
        self.results = dict(settings=settings, rows={})
        if not self.path:
            return
        require_writable(self.path)
        if self.path.exists():
            self.results = _read_run(self.path, settings)

    @property
    def seed(self) -> int:
        return self.results['settings']['seed']

    def run(self, modes: Sequence[str], columns: Sequence[Column],
            progress: Callable[[list[Job]], Iterable[Job]] = iter) -> None:
        """Measure what is still missing.

        Args:
            modes: of 'eval', 'R', 'r', 'max'. Attackers who look through batch
                statistics are left out of 'eval'.
            columns
            progress: wraps the list of jobs to do.
        """
        jobs = self._missing(modes, columns)
        steps = steps_by_attacker(jobs)
        batch = None
        for job in progress(jobs):
            if batch is None or batch.number != job.batch:
                batch = _AttackedBatch(self, job.batch, steps)
            self._measure(job, batch)
        self.save()

    def measure(self, mode: str, column: Column, progress=iter) -> dict:
        """Measure one column of one row; return its entry in the results."""
        self.run([mode], [column], progress)
        return self.results['rows'][mode][column.label]

    def trace(self, mode: str, attack: Attack) -> dict[str, list[dict]]:
        """Follow the first batch through the network, clean and attacked.

        Args:
            mode
            attack: white-box.
        Returns:
            'Clean' and the attack's label to
            :func:`mmadder.robustness.features.norm_inputs`.
        """
        job = Job(0, mode, Column(attack))
        batch = _AttackedBatch(self, 0, steps_by_attacker([job]))
        adversarial = batch.adversarial(job)
        with prepared(self.network, self.seed), self.inference(mode):
            return {label: norm_inputs(self.network, functools.partial(
                self.answer, images, batch.targets))
                for label, images in (('Clean', batch.images),
                                      (attack.label, adversarial))}

    def review(self, modes: Sequence[str], attack: Attack) -> None:
        """Keep with the results what speaks against trusting them.

        Args:
            modes: whose columns have been measured.
            attack: white-box, whose features are looked at.
        """
        warnings = self.results.setdefault('warnings', {})
        features = self.results.setdefault('features', {})
        images, targets = self.load(0)
        for mode in modes:
            row = self.results['rows'].get(mode, {})
            with self.inference(mode):
                seen = self.check(images, targets)
            features[mode] = self.trace(mode, attack)
            warnings[mode] = [
                *seen, *check_features(features[mode]),
                *check_row(row, self.metric), *check_paths(row),
                *check_unbounded(row, self.metric),
                *check_sweeps(row, self.metric)]
        self.save()

    def inference(self, mode: str, detached: bool = False
                  ) -> contextlib.AbstractContextManager:
        """Return a context in which the network answers in a mode."""
        if mode not in MODES:
            raise InputError(f'mode must be one of {MODES}, got {mode!r}')
        if mode == 'eval':
            return contextlib.nullcontext()
        return robust_inference(
            self.network, mode, self.results['settings']['include_logit_bn'],
            detach_statistics=detached)

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path:
            write_json(self.path, self.results)

    def _missing(self, modes, columns):
        """Jobs to do, batch by batch."""
        columns = list(dict.fromkeys(columns))
        require_distinct(columns)
        jobs = []
        for mode in dict.fromkeys(modes):
            with self.inference(mode):  # or its error
                pass
            for column in columns:
                if mode == 'eval' and column.kind in OF_BATCHES:
                    continue
                if column.kind == 'transfer' and self.source is None:
                    raise InputError('a transfer attack needs another model')
                self._require_same(mode, column)
                jobs += [Job(batch, mode, column) for batch in range(
                    self.done(mode, column), self.batches_of(column))]
        return sorted(jobs, key=lambda job: job.batch)

    def _require_same(self, mode, column):
        entry = self.results['rows'].get(mode, {}).get(column.label)
        if entry is not None:
            self.require_column(column, entry['column'])

    def require_column(self, column: Column, known: dict) -> None:
        """Raise InputError unless a column was measured with these settings.

        Args:
            column: what is to be measured.
            known: the settings in the file.
        """
        # Files of earlier versions lack what a column did not have then.
        if dataclasses.asdict(column) != {
                **dataclasses.asdict(Column()), **known}:
            raise InputError(
                f'{self.path} has {column.label} with other settings, '
                f'{known}, now {dataclasses.asdict(column)}; name another '
                'file')

    def batches_of(self, column: Column) -> int:
        """Batches that hold the first images of a column, whole."""
        count, seen = 0, 0
        while count < len(self.batches) and (
                column.images is None or seen < column.images):
            seen += self.size(count)
            count += 1
        return count

    def _measure(self, job, batch):
        change, answers = 0., {}
        for scored, images in batch.parts(job):
            # The attack has checked its own ball.
            change = max(change, check_budget(batch.images, images, 1.))
            # In the fixed batches: attacks may have shrunk theirs on the way.
            with prepared(self.network, self.seed + job.batch), \
                    self.inference(job.mode), torch.no_grad():
                answer = self.answer(images, batch.targets)
            if scored is not None:
                answers.update((i, answer[i]) for i in
                               scored.nonzero().flatten().tolist())
        if answers:
            answer = ''.join(answers[i] for i in sorted(answers))
        if job.mode != 'eval':
            self.warn(batch.targets)
        self.note(job, answer, change, batch.seen(job))

    # What a batch is, and how it is judged.

    @abc.abstractmethod
    def done(self, mode: str, column: Column) -> int:
        """Return how many batches of a column have been measured."""

    @abc.abstractmethod
    def size(self, batch: int) -> int:
        """Return how many images a batch has."""

    @abc.abstractmethod
    def load(self, batch: int) -> tuple[torch.Tensor, Any]:
        """Return images (N, C, H, W) in [0, 1], on the network's device, and
        what they show."""

    @abc.abstractmethod
    def attack(self, model: nn.Module, attack: Attack, images: torch.Tensor,
               targets: Any, steps: set[int], seed: int,
               path: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        """Attack a model; see :meth:`Attack.prefixes`. The path stays empty
        where images have no logits of their own."""

    @abc.abstractmethod
    def answer(self, images: torch.Tensor, targets: Any) -> Any:
        """Return what the network says of images."""

    @abc.abstractmethod
    def note(self, job: Job, answer: Any, change: float,
             seen: dict[str, int]) -> None:
        """Keep an answer, how far its images were moved, and what the attack
        saw on the way, if anything; save."""

    @abc.abstractmethod
    def check(self, images: torch.Tensor, targets: Any) -> list[str]:
        """Return warnings of the network in its present state."""

    @abc.abstractmethod
    def warn(self, targets: Any) -> None:
        """Warn of batches that make figures of R and r meaningless."""


class _AttackedBatch:
    """The images of one batch, and what attackers have made of them so far.

    Args:
        evaluation (BaseEvaluation)
        number (int): of the batch.
        steps (dict): of :func:`steps_by_attacker`.
    """

    def __init__(self, evaluation, number, steps):
        self.evaluation, self.number, self.steps = evaluation, number, steps
        self.images, self.targets = evaluation.load(number)
        # Attacker to a pair: number of steps to images; logits on the way.
        self._made = {}

    def parts(self, job):
        """Yield batches to ask, and which of their images count: None for
        all, else (N,), bool."""
        column, seed = job.column, self.evaluation.seed + self.number
        if column.kind == 'neighbours':
            with self.evaluation.inference(job.mode):
                made = list(attack_neighbours(
                    self.evaluation.network, column.attack, self.images,
                    self.targets, column.share, seed))
            yield from made
        elif column.kind == 'benign':
            yield from surround(self.images, self.adversarial(job),
                                column.share, seed)
        else:
            yield None, self.adversarial(job) if column.attack else \
                self.images

    def adversarial(self, job):
        """Return the images of a job, which others may have asked for."""
        attacker = Attacker.of(job)
        if attacker not in self._made:
            self._made[attacker] = self._attack(attacker)
        return self._made[attacker][0][job.column.attack.steps]

    def seen(self, job):
        """Return :func:`count_path` of a job whose attacker saw the answers
        that are scored; else nothing."""
        column = job.column
        if column.attack is None or column.kind not in ON_SCORED:
            return {}
        _, path = self._made[Attacker.of(job)]
        return count_path(
            path[:column.attack.steps + 1], self.targets) if path else {}

    def _attack(self, attacker):
        evaluation = self.evaluation
        counts = self.steps[self.number, attacker]
        attack = attacker.attack
        if attack.iterated:
            attack = dataclasses.replace(attack, steps=max(counts))
        attacked = evaluation.source if attacker.transfer \
            else evaluation.network
        path = []
        with evaluation.inference(attacker.mode, attacker.detached):
            return evaluation.attack(
                attacked, attack, self.images, self.targets,
                counts - {attack.steps}, evaluation.seed + self.number,
                path), path


def _read_run(path, settings):
    """Read the results of an earlier call.

    Raises:
        InputError: they are of another run, or no results.
    """
    found = read_results(path)
    known = found['settings']
    other = [key for key in settings if known.get(key) != settings[key]]
    if other:
        differences = ', '.join(
            f'{key} {known.get(key)!r} (now {settings[key]!r})'
            for key in other)
        hint = f' ({DATA_HINT})' if 'data' in other else ''
        raise InputError(
            f'{path} is of another run, with {differences}; name another '
            f'file, or delete it{hint}')
    return found
