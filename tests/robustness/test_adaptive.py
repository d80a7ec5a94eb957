"""The worst of several attacks: per image, and asked again as a batch."""
import pytest
import torch
from torch import nn

from mmadder.errors import InputError
from mmadder.robustness import Attack, Column, Evaluation
from mmadder.robustness.adaptive import strongest_batch

IMAGES = torch.full((4, 1, 1, 1), .5)
LABELS = torch.tensor([0, 0, 0, 1])  # of which the last is wrong at once


class Threshold(nn.Module):
    """Class 1 from 0.6 on; or from 0.6 of the batch's largest on."""

    def __init__(self, batch=False):
        super().__init__()
        self.batch = batch

    def forward(self, images):
        x = images.flatten()
        score = x - .6 * (x.max() if self.batch else 1)
        return torch.stack([-score, score], 1)


def moving(*pixels):
    """An attack that sets the first pixels."""
    def run(images, labels):
        made = images.clone()
        made.flatten()[:len(pixels)] = torch.tensor(pixels)
        yield made
    return run


def test_joins_what_different_runs_found():
    found = strongest_batch(
        Threshold(), [moving(.7), moving(.5, .8), moving(.1, .1, .1)],
        IMAGES, LABELS)
    assert found.flatten().tolist() == pytest.approx([.7, .8, .5, .5])


def test_a_joined_batch_is_asked_again():
    """Images of two runs side by side need not fool a model that looks at
    the batch: then the better of the runs counts."""
    model = Threshold(batch=True)
    labels = torch.tensor([1, 1, 1, 1])
    first, second = moving(.2, .2, .5), moving(.5, .5, .1, .5)
    assert model(IMAGES).argmax(1).tolist() == [1, 1, 1, 1]
    found = strongest_batch(model, [second, first], IMAGES, labels)
    assert found.flatten().tolist() == pytest.approx([.2, .2, .1, .5])
    # 1.0 beside the others lets them fall; so does it in the joined batch.
    found = strongest_batch(
        model, [moving(.5, .5, 1.), moving(.2)], IMAGES, labels)
    left = (model(found).argmax(1) == labels).sum()
    assert left == 1


def test_stops_when_nothing_resists():
    def never(images, labels):
        raise AssertionError

    strongest_batch(Threshold(), [moving(.7, .7, .7), never], IMAGES, LABELS)


class Sure(nn.Module):
    """A linear model whose cross entropy is exactly zero on clean images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(48, 4)

    def forward(self, images):
        return 1e5 * self.linear(images.flatten(1))


def test_a_second_loss_where_the_first_vanishes():
    torch.manual_seed(1)
    model = Sure()
    images = torch.rand(20, 3, 4, 4) * .8 + .1
    labels = model(images).argmax(1)

    def accuracy(attack):
        made = attack(model, images, labels)
        return (model(made).argmax(1) == labels).float().mean().item()

    pgd = accuracy(Attack('PGD', eps=.03, alpha=.01))
    assert accuracy(Attack('APGD', eps=.03, steps=10)) < pgd - .1


def test_batches_stay_whole(toy_set):
    """In mode R an answer of fewer images would be another one."""
    model, images, labels = toy_set
    sizes = set()
    hook = model.register_forward_pre_hook(
        lambda _, inputs: sizes.add(len(inputs[0])))
    evaluation = Evaluation(model, images, labels, batch_size=20)
    figures = {kind: evaluation.measure('R', Column(
        Attack(name, eps=.04), kind))['accuracy']
        for name, kind in (('APGD', 'adaptive'), ('PGD', 'detached'),
                           ('PGD', 'white-box'), ('PGD', 'eval-made'))}
    hook.remove()
    assert figures.pop('adaptive') <= min(figures.values())
    assert sizes == {20, 2}  # 2: how many classes are there


def test_few_classes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(InputError, match='APGD needs at least 3 classes'):
        Attack('APGD')(model, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
