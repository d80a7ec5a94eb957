"""Answers changed through the rest of the batch."""
import pytest
import torch
from torch import nn

from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    neighbours_columns,
    robust_inference,
)
from mmadder.robustness.neighbours import (
    attack_neighbours,
    split_batch,
    surround,
)


@pytest.mark.parametrize('count, share, sizes', [
    (10, .5, [5, 5]), (10, .8, [2] * 5), (10, .99, [1] * 10), (7, .5, [4, 3]),
    (10, .2, [8, 2]), (10, .4, [6, 4])])
def test_each_image_is_a_target_once(count, share, sizes):
    """And the others, none a target, are the same number every time."""
    parts = split_batch(count, share, seed=3)
    targets, others = map(torch.stack, zip(*parts))
    assert targets.sum(1).tolist() == sizes
    assert targets.sum(0).tolist() == [1] * count
    assert others.sum(1).tolist() == [count - sizes[0]] * len(sizes)
    assert not (targets & others).any()
    again = split_batch(count, share, seed=3)
    assert all(map(torch.equal, parts[0], again[0]))
    assert not torch.equal(parts[0][0], split_batch(count, share, 4)[0][0])


class AgainstTheMean(nn.Module):
    """Class 1 above the mean of the batch: one of its pixels, less that."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.norm.running_mean.fill_(.5)

    def forward(self, images):
        score = self.norm(images.flatten(1)[:, :1])
        return torch.cat([-score, score], 1)


def test_the_others_move_the_mean_as_far_as_it_goes():
    """A target of class 1 falls only if all others rise, to the corner of
    the ball; then the mean has risen by their share of eps."""
    model = AgainstTheMean().eval()
    images = torch.full((4, 1, 1, 1), .5)
    images[0] += .05
    labels = torch.tensor([1, 0, 0, 0])
    attack = Attack('BIM', eps=.1, alpha=.1, steps=2)
    with robust_inference(model, 'R'):
        for targets, batch in attack_neighbours(
                model, attack, images, labels, .75):
            assert torch.equal(batch[targets], images[targets])
            sign = 1 if targets[0] else -1  # those of class 0 are to rise
            torch.testing.assert_close(
                batch[~targets], images[~targets] + sign * .1)
            mean = images.mean() + sign * .1 * 3 / 4
            right = model(batch).argmax(1) == labels
            assert right[targets] == (
                images[targets] > mean).eq(labels[targets] == 1).item()
            assert not right[targets]


def test_nothing_reaches_other_images_in_mode_eval():
    model = AgainstTheMean().eval()
    images, labels = torch.rand(4, 1, 1, 1), torch.tensor([1, 0, 0, 1])
    for _, batch in attack_neighbours(
            model, Attack('BIM'), images, labels, .5):
        assert torch.equal(batch, images)


def test_surround():
    images, adversarial = torch.zeros(5, 1, 2, 2), torch.ones(5, 1, 2, 2)
    for targets, batch in surround(images, adversarial, .4, seed=1):
        attacked = batch.flatten(1).all(1)
        assert attacked.sum() == 3 and attacked[targets].all()
        assert torch.equal(attacked, batch.flatten(1).any(1))


def test_columns(toy_set):
    """Scored are untouched images beside attacked ones, and attacked ones
    beside benign ones; each image once."""
    model, images, labels = toy_set
    images, labels = .5 + .1 * (images[:20] - .5), labels[:20]  # faint
    evaluation = Evaluation(model, images, labels, seed=5)
    neighbours, benign = neighbours_columns([.8], eps=.2)
    evaluation.run(['eval', 'R'], [Column(), neighbours, benign])
    rows = evaluation.results['rows']
    assert list(rows['eval']) == ['Clean']
    with robust_inference(model, 'R'):
        expected = ['?'] * 20
        for targets, batch in attack_neighbours(
                model, neighbours.attack, images, labels, .8, 5):
            assert (batch - images).abs().max() <= .2 + 1e-6
            for i in targets.nonzero().flatten():
                expected[i] = '01'[model(batch).argmax(1)[i] == labels[i]]
    assert rows['R'][neighbours.label]['correct'] == [''.join(expected)]
    assert rows['R'][neighbours.label]['max_perturbation'] > .1
    adversarial = benign.attack(model, images, labels, 5)
    with robust_inference(model, 'R'):
        for targets, _ in split_batch(20, .8, 5):
            batch = images.clone()
            batch[targets] = adversarial[targets]
            right = (model(batch).argmax(1) == labels)[targets]
            found = rows['R'][benign.label]['correct'][0]
            assert [found[i] == '1' for i in
                    targets.nonzero().flatten()] == right.tolist()
    assert 0 < rows['R'][neighbours.label]['accuracy'] < .5 < \
        rows['R']['Clean']['accuracy']
