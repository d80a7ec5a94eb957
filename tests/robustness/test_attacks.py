"""Attacks on toy models whose worst perturbations are known."""
import contextlib

import pytest
import torch
import torchattacks
from torch import nn
from torch.nn import functional

from mmadder.errors import InputError
from mmadder.layers import AdderConv2d
from mmadder.robustness import (
    Attack,
    BudgetError,
    attacks,
    check_budget,
    robust_inference,
)

NAMES = ('FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM', 'Square', 'APGD',
         'AutoAttack')
EPS = 8 / 255


class Toy(nn.Module):
    """Convolution, batch norm with statistics, linear: 4 classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 36, 4)
        self(torch.rand(50, 3, 8, 8))  # in training mode: statistics

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().flatten(1))


class LinearModel(nn.Module):
    """Two classes, logits +-w.x, every |w| above 0.1."""

    def __init__(self, pixels=3 * 4 * 4):
        super().__init__()
        torch.manual_seed(0)
        weight = torch.randn(pixels)
        self.weight = nn.Parameter(weight + .1 * weight.sign())

    def forward(self, images):
        score = images.flatten(1) @ self.weight
        return torch.stack([score, -score], 1) / 100


@pytest.fixture
def batch():
    """Six images, some pixels at both ends of the range."""
    torch.manual_seed(1)
    images = (torch.rand(6, 3, 8, 8) * 1.2 - .1).clamp(0, 1)
    return images, Toy().eval()(images).argmax(1).detach()


def attack(name, **kwargs):
    if name in ('Square', 'APGD', 'AutoAttack'):
        kwargs.setdefault('steps', 10)
    return Attack(name, **kwargs)


@pytest.mark.parametrize('name', NAMES)
def test_stays_in_ball_and_range(name, batch):
    images, labels = batch
    for eps in (EPS, .2):
        adversarial = attack(name, eps=eps)(Toy(), images, labels)
        change = (adversarial - images).abs().max()
        assert 0 < change <= eps + 1e-6
        assert adversarial.min() >= 0 and adversarial.max() <= 1
        assert not adversarial.requires_grad


@pytest.mark.parametrize('name', NAMES)
def test_under_no_grad(name, batch):
    model, (images, labels) = Toy(), batch
    expected = attack(name)(model, images, labels)
    with torch.no_grad():
        adversarial = attack(name)(model, images, labels)
        assert not torch.is_grad_enabled()
    assert torch.equal(adversarial, expected)


@pytest.mark.parametrize('name', NAMES)
def test_eps_zero_returns_the_input(name, batch):
    images, labels = batch
    adversarial = attack(name, eps=0.)(Toy(), images, labels)
    assert torch.equal(adversarial, images)
    assert adversarial is not images


@pytest.mark.parametrize('name', NAMES)
def test_seed_decides_and_global_state_is_kept(name, batch):
    images, labels = batch
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = attack(name, eps=.1)(Toy().eval(), images, labels, seed=3)
    torch.manual_seed(7)
    again = attack(name, eps=.1)(Toy().eval(), images, labels, seed=3)
    torch.manual_seed(7)
    attack(name, eps=.1)(model := Toy(), images, labels)
    assert torch.equal(first, again)
    torch.manual_seed(7)
    attack(name, eps=.1)(model, images, labels)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize('name', ['FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM'])
def test_worst_case_of_a_linear_model(name):
    """It is a corner of the ball; the paper's steps reach it but for RFGSM.

    A start at -alpha and five steps of alpha end at eps as well; a start of
    PGD anywhere in the ball may leave it short by 2 eps - 7 alpha.
    """
    model = LinearModel()
    images = torch.rand(5, 3, 4, 4) * .8 + .1
    labels = torch.tensor([0, 1, 0, 1, 0])
    direction = model.weight.sign().view(1, 3, 4, 4)
    away = torch.where(labels == 0, -1., 1.).view(-1, 1, 1, 1)
    expected = images + away * direction * EPS
    found = Attack(name)(model, images, labels)
    tolerance = 2 * EPS - 7 * 2 / 255 if name == 'PGD' else 0
    assert (found - expected).abs().max() <= tolerance + 1e-6


def test_fgsm_by_hand(batch):
    images, labels = batch
    model = Toy().eval()
    x = images.clone().requires_grad_()
    functional.cross_entropy(model(x), labels).backward()
    expected = (images + EPS * x.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(
        Attack('FGSM')(model, images, labels), expected)


def test_more_steps_are_stronger(batch):
    images, labels = batch
    model = Toy().eval()

    def loss(attack):
        return functional.cross_entropy(
            model(attack(model, images, labels)), labels).item()

    values = [loss(Attack('BIM', steps=n)) for n in (1, 3, 7)]
    assert values == sorted(values) and values[0] < values[-1]
    assert loss(Attack('FGSM', eps=0.)) < values[0]


@pytest.mark.parametrize('name', ['BIM', 'PGD', 'MIM', 'RFGSM'])
def test_prefixes_are_the_shorter_attacks(name, batch):
    """One run of seven steps holds those of one and three."""
    images, labels = batch
    model = Toy().eval()
    found = Attack(name, steps=7).prefixes(model, images, labels, {1, 3}, 5)
    assert set(found) == {1, 3, 7}
    for steps, adversarial in found.items():
        expected = Attack(name, steps=steps)(model, images, labels, 5)
        assert torch.equal(adversarial, expected)
        assert not adversarial.requires_grad


def test_an_image_without_gradient_stops_nothing():
    """As of a network so sure that its cross entropy is exactly zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images, labels = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    sure = torch.zeros(4, 3)
    sure[0, 0] = 200.
    model.register_forward_hook(
        lambda module, inputs, logits: logits + sure[-len(logits):])
    made = Attack('MIM')(model, images, labels)
    moved = (made - images).abs().flatten(1) > 1e-6
    assert moved[0].sum() <= 1
    alone = Attack('MIM')(model, images[1:], labels[1:])
    assert torch.equal(made[1:], alone)


@pytest.mark.parametrize('name', ['BIM', 'PGD', 'MIM', 'RFGSM'])
@pytest.mark.parametrize('mode', ['eval', 'R', 'r', 'max'])
def test_path_is_what_the_model_says_on_the_way(name, mode, batch):
    """Of whole batches, behind a start that is none of shorter attacks."""
    images, labels = batch
    model = Toy().eval()
    path = []
    with contextlib.nullcontext() if mode == 'eval' else \
            robust_inference(model, mode):
        found = Attack(name, steps=4).prefixes(
            model, images, labels, {1, 2, 3}, 5, path)
        expected = [model(found[steps]).detach() for steps in (1, 2, 3, 4)]
        if name in ('BIM', 'MIM'):
            expected.insert(0, model(images).detach())
    assert len(path) == 5
    for logits, wanted in zip(path[-len(expected):], expected):
        torch.testing.assert_close(logits, wanted)


def test_an_attack_of_one_step_has_no_path(batch):
    path = []
    Attack('FGSM').prefixes(Toy(), *batch, (), 5, path)
    assert path == []


@pytest.mark.parametrize('name', ['BIM', 'PGD', 'MIM', 'RFGSM'])
def test_prefixes_of_radius_zero_are_the_input(name, batch):
    """The model is not asked, so none of its inputs can be kept."""
    images, labels = batch
    found = Attack(name, eps=0., steps=7).prefixes(
        Toy(), images, labels, {1, 3})
    assert set(found) == {1, 3, 7}
    assert all(torch.equal(made, images) and made is not images
               for made in found.values())


def test_prefixes_that_do_not_exist(batch):
    with pytest.raises(InputError, match='FGSM with fewer steps is another'):
        Attack('FGSM').prefixes(Toy(), *batch, {1})
    for steps in (0, 7, 9):
        with pytest.raises(InputError, match=f'from 1 to 6, got .{steps}'):
            Attack('PGD').prefixes(Toy(), *batch, {steps})


def test_no_gradients_of_weights(batch):
    """An adder's would cost as much as that of its input."""
    images, labels = batch
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
        AdderConv2d(4, 4, 3, weight_norm='AWN'), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(64, 4))
    for inference in (contextlib.nullcontext(), robust_inference(model, 'R')):
        with inference, torch.profiler.profile() as profile:
            Attack('PGD', steps=2)(model, images, labels)
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls['mmadder::adder_conv2d'] == 2
        assert calls['mmadder::adder_conv2d_input_grad'] == 2
        assert 'mmadder::adder_conv2d_weight_grad' not in calls
    assert all(p.requires_grad and p.grad is None
               for p in model.parameters())


def test_old_rfgsm_breaks_its_budget(batch):
    """Five unprojected steps of eps - alpha after one of alpha: 4 eps."""
    model = LinearModel()
    images = torch.full((2, 3, 4, 4), .5)
    labels = torch.tensor([0, 1])
    legacy = Attack('LegacyRFGSM')
    assert not legacy.projected and Attack('RFGSM').projected
    adversarial = legacy(model, images, labels)
    change = (adversarial - images).abs()
    assert change.max().item() == pytest.approx(4 * EPS, abs=1e-6)
    assert legacy(Toy(), *batch).max() <= 1
    with pytest.raises(BudgetError, match='moved a pixel by 0.12'):
        check_budget(images, adversarial, EPS)


def test_an_attack_that_breaks_its_budget_is_refused(batch, monkeypatch):
    monkeypatch.setattr(torchattacks, 'BIM', lambda model, eps, **_: (
        lambda images, labels: images + 2 * eps))
    with pytest.raises(BudgetError, match='BIM7 moved a pixel by'):
        Attack('BIM')(Toy(), *batch)
    monkeypatch.setattr(torchattacks, 'BIM', lambda *_, **__: (
        lambda images, labels: images * float('nan')))
    with pytest.raises(BudgetError, match='BIM7 gave NaN'):
        Attack('BIM')(Toy(), *batch)
    with pytest.raises(BudgetError, match=r'pixel range .*-0.0100'):
        check_budget(torch.zeros(1), torch.full((1, ), -.01), .1)


class Failing(Toy):
    """Raises after a number of calls."""

    calls = None

    def forward(self, images):
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise KeyError
        return super().forward(images)


@pytest.mark.parametrize('name', [
    'FGSM', 'PGD', 'Square', 'APGD', 'AutoAttack'])
@pytest.mark.parametrize('calls', [None, 2])
def test_model_is_left_as_it_was(name, calls, batch):
    """Also with parts in other modes, and after an exception."""
    model = Failing().train()
    model.conv.weight.requires_grad_(False)
    model.norm.eval()
    flags = [m.training for m in model.modules()]
    trained = [p.requires_grad for p in model.parameters()]
    before = [tensor.clone() for tensor in model.state_dict().values()]
    model.calls = calls
    try:
        attack(name)(model, *batch)
        assert calls is None or name == 'FGSM'
    except KeyError:
        assert calls is not None
    assert flags == [m.training for m in model.modules()]
    assert trained == [p.requires_grad for p in model.parameters()]
    assert all(map(torch.equal, before, model.state_dict().values()))
    assert all(p.grad is None for p in model.parameters())


def test_robust_inference_holds_during_the_attack(batch):
    """torchattacks sets evaluation mode; statistics stay the batch's."""
    images, labels = batch
    model = Toy().eval()
    x = images.clone().requires_grad_()
    with robust_inference(model, 'r'):
        found = Attack('FGSM')(model, images, labels)
    functional.cross_entropy(model.train()(x), labels).backward()
    expected = (images + EPS * x.grad.sign()).clamp(0, 1)
    agreement = (found - expected).abs() < 1e-6
    assert agreement.float().mean() > .99  # rounding turns some signs


@pytest.mark.parametrize('arguments, message', [
    (dict(name='CW'), "unknown attack 'CW', expected one of .*'AutoAttack'"),
    (dict(name='PGD', eps=8), 'eps is in units of pixels in .* got 8'),
    (dict(name='PGD', alpha=2.), 'alpha is in units of pixels'),
    (dict(name='PGD', eps=-.1), 'eps is in units of pixels'),
    (dict(name='PGD', steps=0), 'steps must be at least 1, got 0'),
])
def test_wrong_numbers(arguments, message):
    with pytest.raises(InputError, match=message):
        Attack(**arguments)


def test_wrong_images_labels_and_models(batch):
    images, labels = batch
    pgd = Attack('PGD')
    with pytest.raises(InputError, match=r'in \[0, 1\], got .* 255'):
        pgd(Toy(), images * 255, labels)
    with pytest.raises(InputError, match=r'in \[0, 1\], got \[nan, nan\]'):
        pgd(Toy(), images * float('nan'), labels)
    with pytest.raises(InputError, match='float64, got .*uint8'):
        pgd(Toy(), (images * 255).byte(), labels)
    with pytest.raises(InputError, match='float64, got .*bfloat16'):
        pgd(Toy().bfloat16(), images.bfloat16(), labels)
    with pytest.raises(InputError, match='Conv2d returns .6, 2, 6, 6'):
        pgd(nn.Conv2d(3, 2, 3), images, labels)
    with pytest.raises(InputError, match='Conv2d returns .2, 2, 6, 6'):
        Attack('AutoAttack')(nn.Conv2d(3, 2, 3), images, labels)
    with pytest.raises(InputError, match='below the 4 classes'):
        pgd(Toy(), images, labels + 9)
    with pytest.raises(InputError, match='labels must be 6 numbers'):
        pgd(Toy(), images, labels[:2])
    for wrong in (labels.float(), labels.int(), labels[:, None]):
        with pytest.raises(InputError, match='numbers of int64, got'):
            pgd(Toy(), images, wrong)
    with torch.inference_mode(), pytest.raises(InputError, match='outside'):
        pgd(Toy(), images, labels)


def test_missing_library(monkeypatch):
    monkeypatch.setattr(attacks.importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(InputError, match='--no-deps torchattacks'):
        attacks.import_torchattacks()
