"""Each sign of an untrustworthy figure, and silence without it."""
import pytest
import torch
from torch import nn

from mmadder.robustness import (
    check_detector,
    check_features,
    check_model,
    check_paths,
    check_results,
    check_row,
    check_sweep,
    check_unbounded,
    count_path,
    robust_inference,
)


def net(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8),
                         nn.ReLU(), nn.Linear(8, 3), *last).eval()


class Noise(nn.Module):

    def forward(self, x):
        return x + torch.randn_like(x)


class Rounded(nn.Module):
    """Right answers, no gradient."""

    def forward(self, x):
        return x.round()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(8, 3, 4, 4), torch.arange(8) % 3


def test_an_ordinary_model_passes(batch):
    assert check_model(net(), *batch) == []


def test_randomised(batch):
    found = check_model(net(Noise()), *batch)
    assert any('randomised' in text for text in found)


def test_zero_gradients(batch):
    text, = check_model(net(Rounded()), *batch)
    assert 'loss of 8 of 8 images has no gradient' in text


@pytest.mark.parametrize('mode', ['R', 'r'])
def test_batch_dependence(mode, batch):
    model = net()
    with robust_inference(model, mode):
        text, = check_model(model, *batch)
    assert text.startswith('batch dependence')


def test_ordinary_results_pass():
    assert check_results({
        'Clean': .9, 'FGSM': .5, 'BIM7': .31, 'PGD7': .3, 'MIM5': .35,
        'RFGSM5': .33, 'PGD7 detached': .32, 'PGD7 transfer': .7,
        'PGD7 eval-made': .3, 'Square': .4, 'AutoAttack': .2,
        'APGD50 adaptive': .295, 'PGD20 neighbours 50%': .9,
        'LegacyRFGSM5': .01}) == []


@pytest.mark.parametrize('results, text', [
    ({'FGSM': .3, 'PGD7': .4}, 'weaker than one step'),
    ({'PGD7': .6, 'PGD7 detached': .4}, 'a weaker gradient'),
    ({'PGD7': .6, 'Square': .4}, 'gradients are masked'),
    ({'PGD7': .6, 'PGD7 transfer': .4}, 'gradients are masked'),
    ({'PGD7': .6, 'PGD7 eval-made': .4}, 'gradients are masked'),
    ({'PGD7': .6, 'APGD50 adaptive': .4}, 'is the figure that counts'),
    ({'Clean': .9, 'PGD20 neighbours 50%': .8}, 'nobody touched fall from '
     '90.0% to 80.0%'),
    ({'PGD7': .4, 'APGD50 adaptive': .405}, 'weaker than PGD7'),
])
def test_suspicious_results(results, text):
    found, = check_results(results)
    assert text in found


@pytest.mark.parametrize('kind', ['detached', 'eval-made', 'transfer'])
def test_an_adaptive_attack_is_the_strongest(kind):
    found = check_results({'PGD7': .6, f'PGD7 {kind}': .4,
                           'APGD50 adaptive': .45})
    assert any(f'APGD50 adaptive (45.0%) is weaker than PGD7 {kind}' in text
               for text in found)


def test_columns_of_fewer_images_are_compared_on_these():
    """Of 8 images Square has the first 4, on which nothing is hidden."""
    def entry(*correct, note=''):
        return dict(column=dict(note=note), correct=list(correct))

    row = dict(PGD7=entry('1000', '1111'), Square=entry('1000'),
               sweep=entry('0000', '0000', note='steps'))
    assert check_row(row) == []
    row['Square'] = entry('0000')
    text, = check_row(row)
    assert 'leaves 0.0%, the best white-box attack 25.0%' in text
    row['FGSM'] = entry('0000', '0000')
    weaker, = check_row(row)  # said once
    assert weaker.startswith('PGD7 (62.5%) is weaker')
    rows = {label: dict(column=dict(note=''), mAP=value)
            for label, value in (('FGSM', .3), ('PGD7', .4))}
    assert len(check_row(rows, 'mAP')) == 1


def logits_of(*losses):
    """Of two classes, (steps, images), with these cross entropies."""
    margins = [torch.tensor(step).expm1().log() for step in losses]
    return [torch.stack([torch.zeros_like(margin), margin], 1)
            for margin in margins]


def test_count_path():
    """Right below ln 2. The last two of ten steps count: the first image is
    wrong in the end, the second was so, the third is so at its largest loss,
    the fourth and the last one grow, the fifth no more."""
    steps = torch.linspace(0, 1, 11)
    losses = torch.stack([
        .1 + steps,
        torch.where(steps == .5, .8, .2),
        torch.where(steps == .9, .8, .3),
        .1 + .5 * steps,
        .1 + .5 * (2 * steps).clamp_max(1),
        torch.where(steps == 1, .14, .1)], 1)
    labels = torch.zeros(6, dtype=torch.long)
    assert count_path(logits_of(*losses.tolist()), labels) == dict(
        images=6, resisting=5, silent=2, growing=3)
    # Of two steps the last one counts.
    assert count_path(logits_of([.1, .1], [.5, .5], [.5, .55]),
                      labels[:2])['growing'] == 1


def test_path_of_an_image_that_nothing_moves():
    """Its loss is exactly zero."""
    path = [torch.tensor([[500., 0.]])] * 3
    assert count_path(path, torch.tensor([0])) == dict(
        images=1, resisting=1, silent=0, growing=0)


def test_paths():
    def entry(silent, growing, note=''):
        return dict(column=dict(note=note), path=dict(
            images=200, resisting=40, silent=silent, growing=growing))

    row = dict(Clean=dict(column=dict(note='')), BIM7=entry(2, 2),
               sweep=entry(9, 9, 'steps'))
    assert check_paths(row) == []
    row.update(PGD7=entry(3, 40), MIM5=entry(0, 30))
    silent, growing = check_paths(row)
    assert silent.startswith('silent success: of the images that resist, 3 '
                             'of 40 under PGD7 were misclassified')
    assert '40 of 40 under PGD7, 30 of 40 under MIM5 still grew' in growing


def test_unbounded():
    row = dict(Clean=dict(column=dict(note=''), accuracy=.9, mAP=.9),
               BIM9=dict(column=dict(note='unbounded'), accuracy=.01, mAP=.2))
    assert check_unbounded(row) == []
    text, = check_unbounded(row, 'mAP')
    assert text.startswith('unconstrained attack failure: BIM9 leaves 20.0%')


def test_sweeps_must_fall():
    assert check_sweep([.9, .5, .505, .1], 'steps') == []
    text, = check_sweep([.9, .5, .6, .1], 'steps')
    assert '50.0% to 60.0% with more steps' in text


@pytest.mark.parametrize('spread', [.1, 30., float('inf'), float('nan')])
def test_runaway_features(spread):
    layers = [dict(layer='bn1', spread=3.), dict(layer='bn2', spread=spread)]
    text, = check_features(dict(Clean=layers[:1], FGSM=layers))
    assert 'FGSM: what bn2 gets' in text
    assert check_features(dict(Clean=layers[:1], FGSM=[])) == []


def test_detector(detector, annotated):
    network = detector[2]
    assert check_detector(network, *annotated) == []
    with robust_inference(network, 'R'):
        found = check_detector(network, *annotated)
    assert [text.split(':')[0] for text in found] == ['batch dependence']
