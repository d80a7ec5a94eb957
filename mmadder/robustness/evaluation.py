"""Figures under attack, batch by batch, so that a run can go on later."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import torch

from mmadder.errors import InputError

from .attacks import check_budget, prepared
from .batch_statistics import robust_inference, warn_of_batch
from .columns import BLINDED, Column
from .features import norm_inputs

MODES = ('eval', 'R', 'r')

Job = collections.namedtuple('Job', 'batch mode column')


class Evaluation:
    """Accuracies of one classifier, kept in a JSON file as they come.

    Batch by batch, all modes and columns, so that a run cut short has whole
    rows of fewer images, and images that several columns need are made once:
    those of PGD with 1 to 50 steps, or those made in mode eval for all modes.

    Args:
        classifier (PixelClassifier): or any pixels-to-logits module.
        images, labels (Tensor): (N, C, H, W) in [0, 1], and (N,), on the CPU;
            batches follow the classifier.
        batch_size (int): of attacks and of batch statistics. The last batch
            joins the one before if it is smaller than half.
        seed (int): of the attacks; batch i has the same random numbers in
            every run.
        include_logit_bn (bool): scope of robust inference.
        source (nn.Module, optional): pixels-to-logits model that 'transfer'
            attacks.
        path (str | Path, optional): results are read from and written to it
            after every batch.
        facts (dict): what else identifies the run, such as the checkpoint;
            with the settings it must equal that of an existing file.
    Raises:
        InputError: the file is of another run, or a directory.
    """

    metric = 'accuracy'

    def __init__(self, classifier, images, labels, batch_size=100, seed=0,
                 include_logit_bn=True, source=None, path=None, facts=()):
        settings = dict(
            facts, images=len(images), batch_size=batch_size, seed=seed,
            include_logit_bn=include_logit_bn,
            data=hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16])
        self.classes = int(labels.max()) + 1
        batches = _split(images, labels, batch_size)
        self._set_up(classifier, batches, source, path, settings)

    def _set_up(self, network, batches, source, path, settings):
        self.network, self.batches, self.source = network, batches, source
        self.seed = settings['seed']
        self.include_logit_bn = settings['include_logit_bn']
        self.path = path and Path(path)
        self.results = dict(settings=settings, rows={})
        self._made = {}  # attacker to adversarial images, of one batch
        if not self.path:
            return
        if self.path.is_dir():
            raise InputError(f'{path} is a directory, expected a file')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._resume(settings)

    def _resume(self, settings):
        try:
            found = json.loads(self.path.read_text())
            known = found['settings']
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f'{self.path} is no result of this tool; name '
                             'another file') from error
        other = [f'{key} {known.get(key)!r} (now {value!r})'
                 for key, value in settings.items()
                 if known.get(key) != value]
        if other:
            raise InputError(
                f'{self.path} is of another run, with {", ".join(other)}; '
                'name another file, or delete it')
        self.results = found

    def run(self, modes, columns, progress=iter):
        """Measure what is still missing.

        Args:
            modes (list[str]): of 'eval', 'R', 'r'. Attackers who look
                through batch statistics are left out of 'eval'.
            columns (list[Column])
            progress (callable): wraps the list of jobs to do, (batch, mode,
                column) each.
        """
        jobs = self._jobs(modes, columns)
        wanted = collections.defaultdict(set)
        for job in jobs:
            if job.column.attack:
                wanted[job.batch, *self._attacker(job)].add(
                    job.column.attack.steps)
        loaded = None
        for job in progress(jobs):
            if loaded != job.batch:
                loaded, batch = job.batch, self.load(job.batch)
                self._made.clear()
            self._do(job, batch, wanted)
        self.save()

    def measure(self, mode, column, progress=iter):
        """Measure one column of one row.

        Returns:
            dict: 'accuracy' in [0, 1], 'images', 'max_perturbation' in units
            of pixels in [0, 1], and per batch 'correct', a string of 0 and 1.
        """
        self.run([mode], [column], progress)
        return self.results['rows'][mode][column.label]

    def trace(self, mode, attack):
        """Follow the first batch through the network, clean and attacked.

        Args:
            mode (str)
            attack (Attack): white-box.
        Returns:
            dict[str, list[dict]]: 'Clean' and the attack's label to
            :func:`mmadder.robustness.features.norm_inputs`.
        """
        images, targets = self.load(0)
        self._made.clear()
        job = Job(0, mode, Column(attack))
        wanted = {(0, *self._attacker(job)): {attack.steps}}
        adversarial = self._adversarial(job, images, targets, wanted)
        self._made.clear()
        with prepared(self.network, self.seed), self.inference(mode):
            return {label: norm_inputs(
                self.network, lambda: self.answer(pixels, targets))
                for label, pixels in (('Clean', images),
                                      (attack.label, adversarial))}

    def _jobs(self, modes, columns):
        jobs = []
        for mode in modes:
            with self.inference(mode):  # or its error
                pass
            for column in columns:
                if mode == 'eval' and column.kind in BLINDED:
                    continue
                if column.kind == 'transfer' and self.source is None:
                    raise InputError('a transfer attack needs another model')
                self._require_same(mode, column)
                jobs += [Job(batch, mode, column) for batch in range(
                    self.done(mode, column), self._count(column))]
        return sorted(jobs, key=lambda job: job.batch)

    def _require_same(self, mode, column):
        entry = self.results['rows'].get(mode, {}).get(column.label)
        key = dataclasses.asdict(column)
        if entry is not None and entry['column'] != key:
            raise InputError(
                f'{self.path} has {column.label} with other settings, '
                f'{entry["column"]}, now {key}; name another file')

    def _count(self, column):
        """Batches that hold the first images of a column, whole."""
        count, seen = 0, 0
        while count < len(self.batches) and (
                column.images is None or seen < column.images):
            seen += self.size(count)
            count += 1
        return count

    def _do(self, job, batch, wanted):
        images, targets = batch
        adversarial, change = images, 0.
        if job.column.attack is not None:
            adversarial = self._adversarial(job, images, targets, wanted)
            # The attack has checked its own ball.
            change = check_budget(images, adversarial, 1.)
        # In the fixed batches: attacks may have shrunk theirs on the way.
        with prepared(self.network, self.seed + job.batch), \
                self.inference(job.mode), torch.no_grad():
            answer = self.answer(adversarial, targets)
        if job.mode != 'eval':
            self.warn(targets)
        self.note(job, answer, change)

    def _attacker(self, job):
        """What is attacked, in which state, and how: equal ones make equal
        images but for the number of steps."""
        kind, attack = job.column.kind, job.column.attack
        state = kind if kind == 'transfer' else 'eval' \
            if kind == 'eval-made' or job.mode == 'eval' \
            else (job.mode, kind == 'detached')
        return state, attack if not attack.iterated else \
            dataclasses.replace(attack, steps=1)

    def _adversarial(self, job, images, targets, wanted):
        attacker, steps = self._attacker(job), job.column.attack.steps
        if (attacker, steps) not in self._made:
            counts = wanted[job.batch, *attacker]
            attack = dataclasses.replace(
                job.column.attack, steps=max(counts))
            with self._attacked(attacker[0]) as model:
                made = self.attack(
                    model, attack, images, targets,
                    counts - {attack.steps}, self.seed + job.batch)
            self._made.update(
                ((attacker, n), value) for n, value in made.items())
        return self._made[attacker, steps]

    @contextlib.contextmanager
    def _attacked(self, state):
        """Yield what the attacker differentiates."""
        if state in ('transfer', 'eval'):
            yield self.source if state == 'transfer' else self.network
        else:
            mode, detach = state
            with self.inference(mode, detach_statistics=detach):
                yield self.network

    def inference(self, mode, **kwargs):
        """Return a context in which the network answers in a mode."""
        if mode not in MODES:
            raise InputError(f'mode must be one of {MODES}, got {mode!r}')
        if mode == 'eval':
            return contextlib.nullcontext()
        return robust_inference(
            self.network, mode, self.include_logit_bn, **kwargs)

    def save(self):
        """Write the file, whole or not at all."""
        if self.path:
            partial = self.path.with_name(self.path.name + '.part')
            partial.write_text(json.dumps(self.results, indent=1))
            os.replace(partial, self.path)

    # What a batch is and how it is judged; detection has its own.

    def done(self, mode, column):
        """Batches of a column that have been measured."""
        entry = self.results['rows'].get(mode, {}).get(column.label)
        return len(entry['correct']) if entry else 0

    def size(self, batch):
        return len(self.batches[batch][1])

    def load(self, batch):
        device = next(self.network.parameters()).device
        return [part.to(device) for part in self.batches[batch]]

    def attack(self, model, attack, images, labels, steps, seed):
        return attack.prefixes(model, images, labels, steps, seed)

    def warn(self, labels):
        """Of batches that make figures of R and r meaningless."""
        warn_of_batch(labels, self.classes)

    def answer(self, images, labels):
        right = self.network(images).argmax(1) == labels
        return ''.join('01'[value] for value in right.tolist())

    def note(self, job, answer, change):
        row = self.results['rows'].setdefault(job.mode, {})
        entry = row.setdefault(job.column.label, dict(
            column=dataclasses.asdict(job.column), correct=[],
            max_perturbation=0.))
        entry['correct'].append(answer)
        entry['max_perturbation'] = max(entry['max_perturbation'], change)
        answers = ''.join(entry['correct'])
        entry.update(images=len(answers),
                     accuracy=answers.count('1') / len(answers))
        self.save()


def _split(images, labels, batch_size):
    """Batches; a last one below half the size joins the one before."""
    if batch_size < 1:
        raise InputError(f'batch size must be positive, got {batch_size}')
    parts = list(zip(images.split(batch_size), labels.split(batch_size)))
    if len(parts) > 1 and 2 * len(parts[-1][1]) < batch_size:
        *parts, before, last = parts
        parts.append(tuple(torch.cat(pair) for pair in zip(before, last)))
    return parts
