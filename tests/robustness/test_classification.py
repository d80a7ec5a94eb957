import pytest
from toy_classifier import accuracy, toy

from mmadder.errors import InputError
from mmadder.robustness import (
    Attack,
    Column,
    Evaluation,
    RobustInferenceWarning,
    robust_inference,
)


@pytest.mark.parametrize('mode', ['eval', 'R', 'r'])
def test_measures_what_it_says(toy_set, mode):
    model, images, labels = toy_set
    evaluation = Evaluation(model, images, labels, batch_size=20, seed=5)
    attack = Attack('PGD', eps=.06, alpha=.02)
    entry = evaluation.measure(mode, Column(attack))
    expected = []
    for i, part in enumerate((slice(0, 20), slice(20, 40))):
        with evaluation.inference(mode):
            adversarial = attack(model, images[part], labels[part], 5 + i)
            expected.append(accuracy(model, adversarial, labels[part]))
    assert entry['accuracy'] == pytest.approx(sum(expected) / 2)
    assert entry['images'] == 40
    assert 0 < entry['max_perturbation'] <= .06 + 1e-6
    clean = evaluation.measure(mode, Column())
    assert clean['accuracy'] > entry['accuracy']
    assert clean['max_perturbation'] == 0


def test_kinds_of_attackers(toy_set):
    """Each differentiates its own model; all are scored alike."""
    model, images, labels = toy_set
    images, labels = images[:20], labels[:20]
    other, _, _ = toy(1)
    evaluation = Evaluation(model, images, labels, source=other)
    attack = Attack('FGSM', eps=.05)
    made = {'eval-made': attack(model, images, labels),
            'transfer': attack(other, images, labels)}
    for detach in (False, True):
        with robust_inference(model, 'R', detach_statistics=detach):
            made['detached' if detach else 'white-box'] = attack(
                model, images, labels)
    for kind, adversarial in made.items():
        with robust_inference(model, 'R'):
            expected = accuracy(model, adversarial, labels)
        found = evaluation.measure('R', Column(attack, kind))
        assert found['accuracy'] == pytest.approx(expected), kind
    with pytest.raises(InputError, match='needs another model'):
        Evaluation(model, images, labels).measure(
            'eval', Column(attack, 'transfer'))


def test_shrinking_attacks_are_scored_in_whole_batches(toy_set):
    """Square and AutoAttack drop images: with -R, other statistics."""
    model, images, labels = toy_set
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0])))
    evaluation = Evaluation(model, images, labels, batch_size=20)
    evaluation.measure('R', Column(
        Attack('AutoAttack', eps=.04, steps=5), images=15))
    hook.remove()
    assert min(seen) < 20 and seen[-1] == 20
    assert evaluation.results['rows']['R']['AutoAttack']['images'] == 20


def test_batches():
    model, images, labels = toy()
    sizes = {
        size: [len(part) for _, part in Evaluation(
            model, images, labels, batch_size=size).batches]
        for size in (20, 17, 15, 100)}
    assert sizes == {20: [20, 20], 17: [17, 23], 15: [15, 15, 10], 100: [40]}


def test_sorted_batches_are_warned_of(toy_set):
    model, images, labels = toy_set
    order = labels.argsort()
    evaluation = Evaluation(model, images[order], labels[order], 20)
    with pytest.warns(RobustInferenceWarning, match='2 of 4 classes'):
        evaluation.measure('R', Column())
