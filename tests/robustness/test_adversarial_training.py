"""Training on adversarial images."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import HOOKS, MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mmadder.errors import InputError
from mmadder.robustness import AdversarialTrainingHook
from mmadder.statistics import reestimate_statistics

EPS = 8 / 255


@pytest.fixture
def runner():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            data_preprocessor=dict(
                type='ClsDataPreprocessor', num_classes=4, to_rgb=True,
                mean=[120., 110., 100.], std=[60., 50., 40.]),
            backbone=dict(type='AdderResNetCIFAR', depth=20, base_channels=4,
                          stem_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='BNLogitsHead', num_classes=4, in_channels=16)))
    return SimpleNamespace(model=model.train())


def batch(size=12):
    generator = torch.Generator().manual_seed(1)
    return dict(
        inputs=list(torch.randint(0, 256, (size, 3, 10, 9), dtype=torch.uint8,
                                  generator=generator)),
        data_samples=[DataSample().set_gt_label(i % 4) for i in range(size)])


def loss(runner, data):
    data = runner.model.data_preprocessor(data, True)
    return sum(runner.model(**data, mode='loss').values())


def attacked(runner, seed=0, **kwargs):
    hook = AdversarialTrainingHook(**kwargs)
    hook.before_train(runner)
    data = batch()
    torch.manual_seed(seed)
    hook.before_train_iter(runner, 0, data)
    return data


def test_images_are_harder_and_within_the_ball(runner):
    before = {key: value.clone()
              for key, value in runner.model.state_dict().items()}
    data, clean = attacked(runner), batch()
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert runner.model.training
    assert all(p.requires_grad and p.grad is None
               for p in runner.model.parameters())
    change = data['inputs'] - torch.stack(clean['inputs'])
    assert data['inputs'].dtype == torch.float32
    assert .5 * 255 * EPS < change.abs().max() <= 255 * EPS + 1e-3
    assert data['inputs'].min() >= 0 and data['inputs'].max() <= 255
    with torch.no_grad():
        assert loss(runner, data) > 1.2 * loss(runner, clean)
    assert torch.equal(data['inputs'], attacked(runner)['inputs'])
    assert not torch.equal(data['inputs'], attacked(runner, 1)['inputs'])


def test_attack_by_hand(runner):
    """One step from the start, up the gradient that training would see."""
    model = runner.model
    images = torch.stack(batch()['inputs'])
    found = attacked(runner, eps=.1, alpha=.05, steps=1)['inputs']
    start = attacked(runner, eps=.1, alpha=1e-9, steps=1)['inputs']
    assert (start - images).abs().max() > 20
    start.requires_grad_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss(runner, dict(batch(), inputs=start)).backward()
    model.load_state_dict(before)
    step = (start + 255 * .05 * start.grad.sign()).detach()
    expected = torch.minimum(torch.maximum(
        step, images - 25.5), images + 25.5).clamp(0, 255)
    agree = (found - expected).abs() < 1e-2
    assert agree.float().mean() > .99  # of zero gradients the sign is open


@pytest.mark.parametrize('norm', ['none', 'untracked', 'frozen'])
def test_norms_that_do_not_learn(runner, norm):
    """They are attacked as they train; a group norm needs no care at all."""
    model = runner.model
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.BatchNorm2d):
                continue
            if norm == 'none':
                setattr(parent, name, nn.GroupNorm(1, child.num_features))
            elif norm == 'untracked':
                setattr(parent, name, nn.BatchNorm2d(
                    child.num_features, track_running_stats=False))
            else:
                child.eval()
    if norm == 'frozen':  # with statistics that fit
        reestimate_statistics(model, [batch()])
    model.head.bn.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    data = attacked(runner)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    with torch.no_grad():
        assert loss(runner, data) > loss(runner, batch())
    found = attacked(runner, eps=.1, alpha=.05, steps=1)['inputs']
    start = attacked(runner, eps=.1, alpha=1e-9, steps=1)['inputs']
    start.requires_grad_()
    loss(runner, dict(batch(), inputs=start)).backward()
    step = 255 * .05 * start.grad.sign()
    images = torch.stack(batch()['inputs'])
    expected = (start.detach() + step).maximum(
        images - 25.5).minimum(images + 25.5).clamp(0, 255)
    assert ((found - expected).abs() < 1e-2).float().mean() > .99


def test_it_is_a_hook_of_configs(runner):
    hook = HOOKS.build(dict(type='AdversarialTrainingHook', steps=2))
    assert hook.attack.label == 'PGD2' and hook.attack.eps == EPS


def test_wrong_input(runner):
    with pytest.raises(InputError, match='pixels in'):
        AdversarialTrainingHook(eps=8)
    hook = AdversarialTrainingHook()
    with pytest.raises(InputError, match='classifier of MMPretrain, got Lin'):
        hook.before_train(SimpleNamespace(model=nn.Linear(2, 2)))
    hook.before_train(runner)
    images = [torch.zeros(3, side, 8, dtype=torch.uint8) for side in (8, 9)]
    with pytest.raises(InputError, match=r'one size, got .*\(3, 9, 8\)'):
        hook.before_train_iter(runner, 0, dict(inputs=images))
    with pytest.raises(InputError, match='must be uint8'):
        hook.before_train_iter(runner, 0, dict(inputs=torch.rand(2, 3, 8, 8)))
