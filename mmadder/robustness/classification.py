"""Classifiers under attack: accuracy before and after."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from .batch_statistics import warn_of_batch
from .checks import check_model
from .data import split_batches
from .evaluation import BaseEvaluation


class Evaluation(BaseEvaluation):
    """Accuracies of one classifier; see :class:`BaseEvaluation`.

    A column's entry in the results has 'accuracy' in [0, 1], 'images',
    'max_perturbation' in units of pixels in [0, 1], per batch 'correct', a
    string of 0 and 1, and 'path', sums of :func:`.checks.count_path`, where
    an iterated attack looked at what is scored.

    Args:
        classifier: PixelClassifier, or any pixels-to-logits module.
        images: (N, C, H, W) in [0, 1], on the CPU; batches follow the
            classifier.
        labels: (N,).
        batch_size: of attacks and of batch statistics. The last batch joins
            the one before if it is smaller than half.
        seed: of the attacks.
        include_logit_bn: scope of robust inference.
        source: pixels-to-logits model that 'transfer' attacks.
        path: results are read from and written to it.
        facts: what else identifies the run, such as the checkpoint.
    Raises:
        InputError: the file is of another run, or a directory.
    """

    metric = 'accuracy'

    def __init__(self, classifier: nn.Module, images: torch.Tensor,
                 labels: torch.Tensor, batch_size: int = 100, seed: int = 0,
                 include_logit_bn: bool = True,
                 source: nn.Module | None = None,
                 path: str | Path | None = None,
                 facts: Mapping | tuple = ()):
        settings = dict(
            facts, images=len(images), batch_size=batch_size, seed=seed,
            include_logit_bn=include_logit_bn, data=_digest(images, labels))
        self.classes = int(labels.max()) + 1
        batches = list(zip(split_batches(images, batch_size),
                           split_batches(labels, batch_size)))
        super().__init__(classifier, batches, settings, source, path)

    def done(self, mode, column):
        entry = self.results['rows'].get(mode, {}).get(column.label)
        return len(entry['correct']) if entry else 0

    def size(self, batch):
        return len(self.batches[batch][1])

    def load(self, batch):
        device = next(self.network.parameters()).device
        images, labels = self.batches[batch]
        return images.to(device), labels.to(device)

    def attack(self, model, attack, images, targets, steps, seed, path):
        return attack.prefixes(model, images, targets, steps, seed, path)

    def answer(self, images, targets):
        right = self.network(images).argmax(1) == targets
        return ''.join('01'[value] for value in right.tolist())

    def note(self, job, answer, change, seen):
        row = self.results['rows'].setdefault(job.mode, {})
        entry = row.setdefault(job.column.label, dict(
            column=dataclasses.asdict(job.column), correct=[],
            max_perturbation=0.))
        entry['correct'].append(answer)
        entry['max_perturbation'] = max(entry['max_perturbation'], change)
        answers = ''.join(entry['correct'])
        entry.update(images=len(answers),
                     accuracy=answers.count('1') / len(answers))
        if seen:
            before = entry.get('path', {})
            entry['path'] = {key: before.get(key, 0) + count
                             for key, count in seen.items()}
        self.save()

    def check(self, images, targets):
        return check_model(self.network, images, targets)

    def warn(self, targets):
        warn_of_batch(targets, self.classes)


def _digest(images, labels):
    digest = hashlib.sha256()
    for tensor in (images, labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
