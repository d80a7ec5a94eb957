"""Signs that a robust accuracy cannot be trusted.

After the checks of AutoAttack (github.com/fra31/auto-attack, checks.py),
"Obfuscated Gradients Give a False Sense of Security" (arXiv:1802.00420) and
"Indicators of Attack Failure" (arXiv:2106.09947).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from .attacks import prepared
from .columns import UNBOUNDED
from .results import sweep_points

if TYPE_CHECKING:  # a circle
    from mmdet.structures import DetDataSample

    from .detection import PixelDetector

MARGIN = 0.01  # accuracy; smaller differences are not remarked on
RUNAWAY = 4  # times what was tracked, or a part of it
LATE = 5  # the last steps of an attack are a fifth of them
GROWING = 0.05  # of the whole growth of a loss, in the last steps
WHITE_BOX = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM')
# Endings of columns by attackers who do not use the model's gradient.
BLIND = (' transfer', ' eval-made')


def check_model(model: nn.Module, images: Tensor,
                labels: Tensor) -> list[str]:
    """Look at how a model answers, before any attack.

    Args:
        model: pixels to logits, in the state it is attacked in.
        images, labels: one batch of at least two images.
    Returns:
        Warnings.
    """
    def loss(images):
        return functional.cross_entropy(
            model(images), labels, reduction='sum')

    with prepared(model, seed=0):
        return _check(model, loss, images)


def check_detector(detector: 'PixelDetector', images: Tensor,
                   samples: 'list[DetDataSample]') -> list[str]:
    """Look at a detector as :func:`check_model` at a classifier.

    Args:
        detector: in the state it is attacked in.
        images: (N, 3, H, W), in [0, 1].
        samples: their annotations.
    Returns:
        Warnings.
    """
    with prepared(detector, seed=0):
        return _check(detector.features, detector.loss_of(samples), images)


def _check(answer, loss, images):
    found = []
    with torch.no_grad():
        once, again = answer(images), answer(images)
        part = answer(images[:-(-len(images) // 2)])
    images = images.clone().requires_grad_()
    gradient, = torch.autograd.grad(loss(images), images)
    if not torch.equal(once, again):
        found.append(
            'randomised defence: the same images give different outputs; '
            'attacks should average over several runs')
    if not torch.allclose(once[:len(part)], part, rtol=1e-3, atol=1e-3):
        found.append(
            'batch dependence: outputs for an image change with the other '
            'images of its batch; figures hold for these batches only, and '
            'attacks that drop images on the way (Square, AutoAttack) see '
            'other statistics: their images are scored again in the batches')
    vanished = (gradient.flatten(1).abs().amax(1) == 0).sum().item()
    if vanished:
        found.append(
            f'zero gradients: the loss of {vanished} of {len(images)} images '
            'has no gradient, so gradient attacks cannot work on them')
    return found


def check_row(row: dict[str, dict], metric: str = 'accuracy') -> list[str]:
    """Compare the attacks on one model, each on the images that it had.

    Square and AutoAttack have few images, which may be harder ones.

    Args:
        row: label to entry, of the results of an ``Evaluation``; points of
            sweeps are left out.
        metric: 'accuracy', or 'mAP', where all have the same images.
    Returns:
        Warnings.
    """
    row = {label: entry for label, entry in row.items()
           if not entry['column']['note']}
    if metric != 'accuracy':
        return check_results({label: entry[metric]
                              for label, entry in row.items()})
    found, before = [], set()
    lengths = {len(entry['correct']) for entry in row.values()}
    for batches in sorted(lengths, reverse=True):
        answers = {label: ''.join(entry['correct'][:batches])
                   for label, entry in row.items()
                   if len(entry['correct']) >= batches}
        found += check_results(
            {label: text.count('1') / len(text)
             for label, text in answers.items()}, set(answers) - before)
        before.update(answers)
    return found


def check_results(accuracies: dict[str, float],
                  names: set[str] | None = None) -> list[str]:
    """Compare the attacks on one model.

    Args:
        accuracies: column to accuracy (or mAP) in [0, 1] on the same images.
            The columns are labels such as 'Clean', 'PGD7', 'Square', 'PGD7
            detached' or 'PGD7 transfer'.
        names: columns to remark on, default: all.
    Returns:
        Warnings.
    """
    found = []
    names = set(accuracies) if names is None else names
    white = {name: value for name, value in accuracies.items()
             if name.rstrip('0123456789') in WHITE_BOX}
    iterated = {name: value for name, value in white.items()
                if name.startswith(('BIM', 'PGD'))}
    one_step = accuracies.get('FGSM')
    for name, value in iterated.items():
        if name in names and one_step is not None and (
                value > one_step + MARGIN):
            found.append(
                f'{name} ({value:.1%}) is weaker than one step, FGSM '
                f'({one_step:.1%}): gradients may be masked')
    strongest = min(white.values(), default=None)
    found += _check_adaptive(accuracies, names, white)
    found += [
        f'{name}: images that nobody touched fall from '
        f'{accuracies["Clean"]:.1%} to {value:.1%} if the rest of their batch '
        'is attacked: who shares a batch can decide its answers'
        for name, value in accuracies.items()
        if name in names and ' neighbours ' in name
        and value < accuracies.get('Clean', 0) - MARGIN]
    for name, value in accuracies.items():
        if name not in names or strongest is None or (
                value >= strongest - MARGIN):
            continue
        if name.endswith(' adaptive'):
            found.append(
                f'{name}: {value:.1%} against {strongest:.1%} of the best '
                'other white-box attack: it is the figure that counts')
        elif name.endswith(' detached'):
            found.append(
                f'{name}: {value:.1%} against {strongest:.1%} of the best '
                'white-box attack. An attacker who does not follow the '
                'gradient through the batch statistics is stronger: part of '
                'the robustness is a weaker gradient')
        elif name.endswith(BLIND) or name == 'Square':
            found.append(
                f'{name}, which does not use the gradient of this mode, '
                f'leaves {value:.1%}, the best white-box attack '
                f'{strongest:.1%}: gradients are masked')
    return found


def _check_adaptive(accuracies, names, white):
    """An adaptive attack is to be the strongest of those with gradients."""
    others = {**white, **{name: value for name, value in accuracies.items()
                          if name.endswith((' detached', *BLIND))}}
    strongest = min(others, key=others.get, default=None)
    return [
        f'{name} ({value:.1%}) is weaker than {strongest} '
        f'({others[strongest]:.1%}): it is no figure of robustness; mend the '
        'attack, or give it more steps'
        for name, value in accuracies.items()
        if name in names and name.endswith(' adaptive')
        and strongest is not None and value > others[strongest]]


def count_path(path: Sequence[Tensor], labels: Tensor) -> dict[str, int]:
    """Look along the way of an iterated attack.

    Args:
        path: logits (N, classes) of the images after 0, 1, ... steps, each of
            the whole batch as it was then.
        labels: (N,).
    Returns:
        'images', N; 'resisting', those classified right in the end; and of
        these 'silent', misclassified before, if only at the start, and
        'growing', whose largest loss so far gained more than 5% of its whole
        growth in the last fifth of the steps (one at least). In the paper it
        is the last ten steps, which an attack of seven lacks.
    """
    logits = torch.stack(tuple(path)).double()
    right = logits.argmax(2) == labels
    losses = torch.stack([
        functional.cross_entropy(step, labels, reduction='none')
        for step in logits]).cummax(0).values
    late = max(1, (len(losses) - 1) // LATE)
    growing = losses[-1] - losses[-1 - late] > GROWING * (
        losses[-1] - losses[0])
    return dict(images=len(labels), **{
        name: int((right[-1] & flags).sum()) for name, flags in dict(
            resisting=right[-1], silent=~right.all(0),
            growing=growing).items()})


def check_paths(row: dict[str, dict]) -> list[str]:
    """Check that attacks return their worst images, and came to an end.

    Args:
        row: label to entry, as for :func:`check_row`; those without 'path'
            and points of sweeps are left out.
    Returns:
        Warnings.
    """
    paths = {label: entry['path'] for label, entry in row.items()
             if 'path' in entry and not entry['column']['note']}

    def counts(name):
        return ', '.join(
            f'{path[name]} of {path["resisting"]} under {label}'
            for label, path in paths.items()
            if path[name] > MARGIN * path['images'])

    found = []
    if silent := counts('silent'):
        found.append(
            f'silent success: of the images that resist, {silent} were '
            'misclassified on the way: attacks return their last images, not '
            'their worst; use one that keeps those (--adaptive)')
    if growing := counts('growing'):
        found.append(
            'incomplete optimization: of the images that resist, the loss of '
            f'{growing} still grew in the last steps: more steps may lower '
            'the figures (--sweep steps)')
    return found


def check_unbounded(row: dict[str, dict],
                    metric: str = 'accuracy') -> list[str]:
    """Check that an attack without bounds leaves nothing.

    Args:
        row, metric: as for :func:`check_row`.
    Returns:
        Warnings.
    """
    return [
        f'unconstrained attack failure: {label} leaves {entry[metric]:.1%}, '
        'though pixels may take any value: gradients are masked, and no '
        'figure of a gradient attack counts; use others (--square, '
        '--transfer-from)'
        for label, entry in row.items()
        if entry['column']['note'] == UNBOUNDED and entry[metric] > MARGIN]


def check_features(trace: dict[str, list[dict]]) -> list[str]:
    """Check that an attack leaves features near their tracked statistics.

    Args:
        trace: of :meth:`Evaluation.trace`.
    Returns:
        Warnings.
    """
    found = []
    for label, layers in trace.items():
        beyond = [layer for layer in layers if not
                  1 / RUNAWAY <= layer['spread'] <= RUNAWAY]
        if beyond:
            worst = beyond[-1]
            found.append(
                f'runaway features, {label}: what {worst["layer"]} gets '
                f'spreads {worst["spread"]:,.3g} times as far as tracked. '
                'What layer after layer adds to that, and no norm takes '
                'away, may cost more accuracy than the attack itself')
    return found


def check_sweeps(row: dict[str, dict],
                 metric: str = 'accuracy') -> list[str]:
    """Check the sweeps of a row, over eps and over steps.

    Args:
        row, metric: as for :func:`check_row`.
    Returns:
        Warnings.
    """
    return [text for what in ('eps', 'steps') for text in check_sweep(
        [figure for _, figure in sweep_points(row, what, metric)], what)]


def check_sweep(accuracies: Sequence[float], what: str) -> list[str]:
    """Check that accuracy falls as attacks get stronger.

    Args:
        accuracies: by growing eps or number of steps.
        what: name of the axis.
    Returns:
        Warnings.
    """
    rises = [(a, b) for a, b in zip(accuracies, accuracies[1:])
             if b > a + MARGIN]
    return [f'accuracy rises from {a:.1%} to {b:.1%} with more {what}: the '
            'attack does not find the worst images' for a, b in rises]
