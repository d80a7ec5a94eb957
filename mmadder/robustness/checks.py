"""Signs that a robust accuracy cannot be trusted.

After the checks of AutoAttack (github.com/fra31/auto-attack, checks.py) and
"Obfuscated Gradients Give a False Sense of Security" (arXiv:1802.00420).
"""

import torch
from torch.nn import functional

from .attacks import prepared

MARGIN = 0.01  # accuracy; smaller differences are not remarked on
RUNAWAY = 4  # times what was tracked, or a part of it
WHITE_BOX = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM')
# Endings of columns by attackers who do not use the model's gradient.
BLIND = (' transfer', ' eval-made')


def check_model(model, images, labels):
    """Look at how a model answers, before any attack.

    Args:
        model (nn.Module): pixels to logits, in the state it is attacked in.
        images, labels (Tensor): one batch of at least two images.
    Returns:
        list[str]: warnings.
    """
    def loss(images):
        return functional.cross_entropy(
            model(images), labels, reduction='sum')

    with prepared(model, seed=0):
        return _check(model, loss, images)


def check_detector(detector, images, samples):
    """Look at a detector as :func:`check_model` at a classifier.

    Args:
        detector (PixelDetector): in the state it is attacked in.
        images (Tensor): (N, 3, H, W), in [0, 1].
        samples (list[DetDataSample]): their annotations.
    Returns:
        list[str]: warnings.
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


def check_results(accuracies):
    """Compare the attacks on one model.

    Args:
        accuracies (dict[str, float]): column to accuracy (or mAP) in
            [0, 1] on the same images. The columns are labels such as
            'Clean', 'PGD7', 'Square', 'PGD7 detached' or 'PGD7 transfer'.
    Returns:
        list[str]: warnings.
    """
    found = []
    white = {name: value for name, value in accuracies.items()
             if name.rstrip('0123456789') in WHITE_BOX}
    iterated = {name: value for name, value in white.items()
                if name.startswith(('BIM', 'PGD'))}
    one_step = accuracies.get('FGSM')
    for name, value in iterated.items():
        if one_step is not None and value > one_step + MARGIN:
            found.append(
                f'{name} ({value:.1%}) is weaker than one step, FGSM '
                f'({one_step:.1%}): gradients may be masked')
    strongest = min(white.values(), default=None)
    for name, value in accuracies.items():
        if strongest is None or value >= strongest - MARGIN:
            continue
        if name.endswith(' detached'):
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


def check_features(trace):
    """Check that an attack leaves features near their tracked statistics.

    Args:
        trace (dict[str, list[dict]]): of :meth:`Evaluation.trace`.
    Returns:
        list[str]: warnings.
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


def check_sweep(accuracies, what):
    """Check that accuracy falls as attacks get stronger.

    Args:
        accuracies (list[float]): by growing eps or number of steps.
        what (str): name of the axis.
    Returns:
        list[str]: warnings.
    """
    rises = [(a, b) for a, b in zip(accuracies, accuracies[1:])
             if b > a + MARGIN]
    return [f'accuracy rises from {a:.1%} to {b:.1%} with more {what}: the '
            'attack does not find the worst images' for a, b in rises]
