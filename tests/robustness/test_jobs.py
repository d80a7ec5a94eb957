from mmadder.robustness import Attack, Column, Corruption
from mmadder.robustness.jobs import Attacker, Job, steps_by_attacker

PGD = Attack('PGD')


def attacker(mode, kind='white-box', attack=PGD, share=None):
    return Attacker.of(Job(0, mode, Column(attack, kind, share=share)))


def test_equal_attackers_make_equal_images():
    once = Attack('PGD', steps=1)
    assert attacker('R') == Attacker(once, 'R')
    assert attacker('R', 'detached') == Attacker(once, 'R', detached=True)
    assert attacker('R', 'adaptive') == attacker('R', 'detached')
    assert attacker('eval', 'adaptive') == attacker('eval')
    noise = Corruption('gaussian_noise', 1)
    assert attacker('R', attack=noise) == attacker('eval', attack=noise)
    # Whatever mode the images are shown to.
    assert attacker('R', 'eval-made') == attacker('r', 'eval-made') == \
        attacker('eval') == attacker('R', 'benign', share=.5) == \
        Attacker(once, 'eval')
    assert attacker('R', 'transfer') == attacker('eval', 'transfer') == \
        Attacker(once, 'eval', transfer=True)
    assert attacker('eval') != attacker('eval', 'transfer')
    assert attacker('R') != attacker('r') != attacker('r', 'detached')


def test_steps_of_iterated_attacks_are_one_run():
    jobs = [Job(batch, 'R', Column(Attack(name, steps=steps)))
            for batch in (0, 1) for name in ('PGD', 'BIM')
            for steps in (3, 7)]
    jobs += [Job(0, 'R', Column()), Job(0, 'eval', Column(PGD)),
             Job(0, 'R', Column(Attack('PGD', steps=9), 'neighbours',
                                share=.5)),
             Job(0, 'R', Column(Attack('Square', steps=5))),
             Job(0, 'R', Column(Attack('Square', steps=6)))]
    steps = steps_by_attacker(jobs)
    assert steps[0, attacker('R')] == steps[1, attacker('R')] == {3, 7}
    assert steps[0, attacker('eval')] == {7}
    # With more queries Square is another attack, not a longer one.
    assert sorted(map(sorted, (
        steps[0, attacker('R', attack=Attack('Square', steps=n))]
        for n in (5, 6)))) == [[5], [6]]
    assert len(steps) == 2 * 2 + 1 + 2
