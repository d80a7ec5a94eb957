"""Accuracy under attack, batch by batch, so that a run can go on later."""

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import torch

from mmadder.errors import InputError

from .attacks import EPS, Attack, check_budget, prepared
from .inference import robust_inference, warn_of_batch

MODES = ('eval', 'R', 'r')
TABLE = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM')  # of the paper


@dataclasses.dataclass(frozen=True)
class Column:
    """One accuracy to measure.

    Args:
        attack (Attack, optional): None for clean images.
        kind (str): what the attacker knows: 'white-box' attacks the model as
            it answers; 'detached' too, but ignores that batch statistics
            depend on the images; 'eval' attacks it with tracked statistics;
            'transfer' attacks another model.
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


def table_columns(eps=EPS):
    """Columns of Table 1: clean and five attacks."""
    return [Column(), *(Column(Attack(name, eps=eps)) for name in TABLE)]


def attacker_columns(eps=EPS):
    """PGD by attackers whom batch statistics do not mislead."""
    return [Column(Attack('PGD', eps=eps), kind)
            for kind in ('detached', 'eval')]


def eps_sweep(values, steps=7):
    """Figure 2(a): PGD with growing eps and a step of eps / 7."""
    return [Column(Attack('PGD', eps=eps, alpha=eps / 7, steps=steps),
                   note=f'eps={eps:g}') for eps in values]


def steps_sweep(values, eps=EPS):
    """Figure 2(b): PGD with growing numbers of steps."""
    return [Column(Attack('PGD', eps=eps, steps=steps), note='steps')
            for steps in values]


class Evaluation:
    """Accuracies of one classifier, kept in a JSON file as they come.

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
        InputError: the file is of another run.
    """

    def __init__(self, classifier, images, labels, batch_size=100, seed=0,
                 include_logit_bn=True, source=None, path=None, facts=()):
        self.classifier, self.source = classifier, source
        self.batches = _split(images, labels, batch_size)
        self.include_logit_bn = include_logit_bn
        self.seed = seed
        self.path = path and Path(path)
        settings = dict(
            facts, images=len(images), batch_size=batch_size, seed=seed,
            include_logit_bn=include_logit_bn,
            data=hashlib.sha256(images.numpy().tobytes()).hexdigest()[:16])
        self.results = dict(settings=settings, rows={})
        if self.path and self.path.exists():
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

    def measure(self, mode, column, progress=iter):
        """Measure what is still missing of a column.

        Args:
            mode (str): 'eval', 'R' or 'r'.
            column (Column)
            progress (callable): wraps the iterable of batches to do.
        Returns:
            dict: 'accuracy' in [0, 1], 'images', 'max_perturbation' in units
            of pixels in [0, 1], and per batch 'correct', a string of 0 and 1.
        """
        if mode not in MODES:
            raise InputError(f'mode must be one of {MODES}, got {mode!r}')
        if column.kind == 'transfer' and self.source is None:
            raise InputError('a transfer attack needs another model')
        key = dataclasses.asdict(column)
        row = self.results['rows'].setdefault(mode, {})
        entry = row.get(column.label)
        if entry is None:
            entry = dict(column=key, correct=[], max_perturbation=0.)
        elif entry['column'] != key:
            raise InputError(
                f'{self.path} has {column.label} with other settings, '
                f'{entry["column"]}, now {key}; name another file')
        batches = _first(self.batches, column.images)
        todo = range(len(entry['correct']), len(batches))
        for index in progress(todo):
            correct, change = self._measure_batch(
                mode, column, *batches[index], self.seed + index)
            entry['correct'].append(correct)
            entry['max_perturbation'] = max(entry['max_perturbation'], change)
            answers = ''.join(entry['correct'])
            entry['images'] = len(answers)
            entry['accuracy'] = answers.count('1') / len(answers)
            row[column.label] = entry
            self.save()
        return entry

    def save(self):
        """Write the file, whole or not at all."""
        if self.path:
            partial = self.path.with_name(self.path.name + '.part')
            partial.write_text(json.dumps(self.results, indent=1))
            os.replace(partial, self.path)

    def inference(self, mode, **kwargs):
        """Return a context in which the classifier answers in a mode."""
        if mode == 'eval':
            return contextlib.nullcontext()
        return robust_inference(
            self.classifier, mode, self.include_logit_bn, **kwargs)

    def _measure_batch(self, mode, column, images, labels, seed):
        device = next(self.classifier.parameters()).device
        images, labels = images.to(device), labels.to(device)
        adversarial, change = images, 0.
        if column.attack is not None:
            with self._attacked(mode, column.kind) as model:
                adversarial = column.attack(model, images, labels, seed)
            # The attack has checked its own ball.
            change = check_budget(images, adversarial, 1.)
        # In the fixed batches: attacks may have shrunk theirs on the way.
        with prepared(self.classifier, seed), self.inference(mode), \
                torch.no_grad():
            logits = self.classifier(adversarial)
        if mode != 'eval':
            warn_of_batch(labels, logits.shape[1])
        right = logits.argmax(1) == labels
        return ''.join('01'[value] for value in right.tolist()), change

    @contextlib.contextmanager
    def _attacked(self, mode, kind):
        """Yield what the attacker differentiates."""
        if kind == 'transfer':
            yield self.source
        elif kind == 'eval':
            yield self.classifier
        else:
            with self.inference(mode, detach_statistics=kind == 'detached'):
                yield self.classifier


def _split(images, labels, batch_size):
    """Batches; a last one below half the size joins the one before."""
    if batch_size < 1:
        raise InputError(f'batch size must be positive, got {batch_size}')
    parts = list(zip(images.split(batch_size), labels.split(batch_size)))
    if len(parts) > 1 and 2 * len(parts[-1][1]) < batch_size:
        *parts, before, last = parts
        parts.append(tuple(torch.cat(pair) for pair in zip(before, last)))
    return parts


def _first(batches, images):
    """The batches that hold the first images, whole."""
    if images is None:
        return batches
    count, seen = 0, 0
    while seen < images and count < len(batches):
        seen += len(batches[count][1])
        count += 1
    return batches[:count]
