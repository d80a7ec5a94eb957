"""Robust inference: the paper's formulas, and a model left as it was."""
import warnings

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mmadder.errors import InputError
from mmadder.models import BNLogitsHead
from mmadder.robustness import (
    RobustInferenceHook,
    RobustInferenceWarning,
    robust_inference,
)

X = torch.tensor([1., 2., 3., 6.])


def tracked_norm():
    norm = nn.BatchNorm1d(1, eps=1e-12).eval()
    norm.running_mean.fill_(10)
    norm.running_var.fill_(4)
    return norm


def tracked(model):
    return [buffer.clone() for buffer in model.buffers()]


def small_net():
    """Norms of both kinds with statistics of their own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 36, 5), nn.BatchNorm1d(5))
    for norm in (model[1], model[5]):
        nn.init.uniform_(norm.weight, .5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, .5, 2)
    return model


@pytest.fixture
def classifier():
    """An ImageClassifier with a norm on its logits."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='AdderResNetCIFAR', depth=20, base_channels=4,
                          stem_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='BNLogitsHead', num_classes=4, in_channels=16)))


@pytest.mark.parametrize('mode, expected', [
    (None, [-4.5, -4., -3.5, -2.]), ('R', [-1., -.5, 0., 1.5]),
    ('r', [-1.0690, -.5345, 0., 1.6036]), ('max', [-1., -.5, 0., 1.5])])
@pytest.mark.parametrize('training', [False, True])
def test_hand_worked_values(mode, expected, training):
    norm = tracked_norm()
    if mode is None:
        values = norm(X[:, None])
    else:
        with robust_inference(norm.train(training), mode):
            values = norm(X[:, None])
    torch.testing.assert_close(
        values.flatten(), torch.tensor(expected), rtol=0, atol=5e-5)
    assert (norm.running_mean, norm.running_var) == (10, 4)


def test_max_divides_by_the_larger_variance():
    """Of each channel; that of the batch is 3.5 in both."""
    norm = nn.BatchNorm1d(2, eps=1e-12).eval()
    norm.running_var.copy_(torch.tensor([4., 1.]))
    with robust_inference(norm, 'max'):
        values = norm(X[:, None].expand(4, 2))
    expected = torch.tensor([[-1., -.5, 0., 1.5],
                             [-1.0690, -.5345, 0., 1.6036]]).T
    torch.testing.assert_close(values, expected, rtol=0, atol=5e-5)


def test_formulas_over_pictures():
    """(N, H, W) are one sample of each channel; affine comes last."""
    norm = small_net()[1].eval()
    y = torch.randn(5, 4, 3, 2, dtype=torch.float64) * 9 - 50
    norm.double()
    flat = y.transpose(0, 1).reshape(4, -1)
    mean, variance = flat.mean(1), flat.var(1, correction=0)
    norm.running_var[:2] = 90  # the others below the batch's
    for mode, spread in (('R', norm.running_var), ('r', variance),
                         ('max', variance.maximum(norm.running_var))):
        expected = (y.transpose(1, 3) - mean) / (spread + norm.eps).sqrt() \
            * norm.weight + norm.bias
        with robust_inference(norm, mode):
            torch.testing.assert_close(norm(y), expected.transpose(1, 3))


def test_r_is_the_training_forward():
    model, images = small_net(), torch.rand(6, 3, 8, 8)
    before = tracked(model)
    with robust_inference(model.eval(), 'r'):
        values = model(images)
    assert all(map(torch.equal, before, model.buffers()))
    torch.testing.assert_close(
        values, model.train()(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('mode', ['R', 'r', 'max'])
def test_everything_is_restored_after_an_exception(mode):
    model, images = small_net(), torch.rand(6, 3, 8, 8)
    model[1].eval()  # and the rest in training mode
    before, flags = tracked(model), [m.training for m in model.modules()]
    expected = model[1](model[0](images))
    with pytest.raises(KeyError):
        with robust_inference(model, mode):
            assert not torch.allclose(model[1](model[0](images)), expected)
            model(images)
            raise KeyError
    assert all(map(torch.equal, before, model.buffers()))
    assert flags == [m.training for m in model.modules()]
    assert torch.equal(model[1](model[0](images)), expected)
    assert 'forward' not in vars(model[1])
    assert not model._forward_pre_hooks


def test_contexts_nest():
    norm = tracked_norm()
    with robust_inference(norm, 'R'):
        outer = norm(X[:, None])
        with robust_inference(norm, 'r'):
            assert not torch.equal(norm(X[:, None]), outer)
        assert torch.equal(norm(X[:, None]), outer)


def test_scope_leaves_the_logits_alone(classifier):
    images = torch.rand(6, 3, 32, 32)
    features = torch.randn(6, 16)
    head = classifier.eval().head
    assert isinstance(head, BNLogitsHead)
    plain = head((features, ))
    with robust_inference(classifier, include_logit_bn=False):
        assert torch.equal(head((features, )), plain)
        kept = classifier(images)
    with robust_inference(classifier):
        assert not torch.allclose(head((features, )), plain)
        assert not torch.allclose(classifier(images), kept)


def test_detached_statistics_change_the_gradient_only():
    images = torch.rand(6, 3, 8, 8, requires_grad=True)
    model = small_net().eval()
    results = {}
    for detach in (False, True):
        with robust_inference(model, 'R', detach_statistics=detach):
            output = model(images)
            gradient, = torch.autograd.grad(output.square().sum(), images)
        results[detach] = output, gradient
    assert torch.equal(results[False][0], results[True][0])
    assert not torch.allclose(results[False][1], results[True][1])


def test_gradient_through_the_mean():
    """A norm that subtracts the mean passes no common shift on."""
    norm = tracked_norm().double()
    x = X[:, None].double().requires_grad_()
    for mode, tracked_variance in (('R', 4), ('r', 4), ('max', 4),
                                   ('max', 1)):
        norm.running_var.fill_(tracked_variance)
        with robust_inference(norm, mode):
            assert torch.autograd.gradcheck(norm, x)
            g, = torch.autograd.grad(norm(x).square().sum(), x)
            assert g.sum().abs() < 1e-9


@pytest.mark.parametrize('detach', [False, True])
@pytest.mark.parametrize('affine', [False, True])
@pytest.mark.parametrize('mode', ['R', 'r', 'max'])
def test_gradients_of_the_formula(mode, affine, detach):
    """Of input, scale and shift, against the formula differentiated."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, affine=affine).double()
    norm.running_var.uniform_(1, 3)
    norm.running_var[0] = .1
    x = torch.randn(4, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    wanted = [x, *norm.parameters()]
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    running = norm.running_var.view(1, 3, 1, 1)
    if mode != 'r':
        variance = running if mode == 'R' else variance.maximum(running)
    if detach:
        variance, mean = variance.detach(), mean.detach()
    expected = (x - mean) / (variance + norm.eps).sqrt()
    if affine:
        expected = expected * norm.weight.view(1, 3, 1, 1) \
            + norm.bias.view(1, 3, 1, 1)
    with robust_inference(norm, mode, detach_statistics=detach):
        found = norm(x)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.pow(3).sum(), wanted),
                    torch.autograd.grad(expected.pow(3).sum(), wanted)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('mode', ['R', 'r', 'max'])
def test_half_precision_and_one_value(mode):
    """Statistics are float32; one value a channel gives the shift."""
    norm = nn.BatchNorm1d(3)
    norm.bias.data.fill_(2)
    x = torch.randn(4, 3) + 100
    with robust_inference(norm, mode), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for dtype in (torch.bfloat16, torch.float16):
            found = norm(x.to(dtype))
            assert found.dtype == dtype
            torch.testing.assert_close(
                found, norm(x.to(dtype).float()).to(dtype))
        torch.testing.assert_close(
            norm(x[:1] - 100), torch.full((1, 3), 2.), rtol=0, atol=1e-4)


def labelled(*labels):
    return [DataSample().set_gt_label(label) for label in labels]


@pytest.mark.filterwarnings('error')
def test_warnings(classifier):
    classifier.eval()
    images = torch.rand(12, 3, 32, 32)
    with robust_inference(classifier):
        with pytest.warns(RobustInferenceWarning, match='of one image'):
            classifier(images[:1])
        with pytest.warns(RobustInferenceWarning, match='1 of 4 classes'):
            classifier(images, labelled(*[2] * 12), mode='predict')
        classifier(images, labelled(*range(4), *range(4), *range(4)),
                   mode='predict')
        classifier(images[:2], labelled(1, 1), mode='predict')
    classifier(images[:1])  # outside, nothing is said


def test_bad_input():
    with pytest.raises(InputError, match=r"\('R', 'r', 'max'\), got 'eval'"):
        with robust_inference(small_net(), 'eval'):
            pass
    with pytest.raises(InputError, match='Conv2d has no batch norm'):
        with robust_inference(nn.Conv2d(3, 3, 1)):
            pass
    with pytest.raises(InputError, match='no batch norm but that of the log'):
        with robust_inference(BNLogitsHead(3, 4), include_logit_bn=False):
            pass
    with pytest.raises(InputError, match='BatchNorm2d of .* tracks no'):
        with robust_inference(nn.BatchNorm2d(3, track_running_stats=False)):
            pass


def test_as_a_hook(classifier):
    """As custom_hooks of a config; leaves the model as it was."""
    features = torch.randn(6, 16)
    plain = classifier.eval().head((features, ))
    hook = RobustInferenceHook(mode='r', include_logit_bn=True)
    runner = type('Runner', (), dict(model=classifier))
    for start, end in ((hook.before_test, hook.after_test),
                       (hook.before_val, hook.after_val)):
        start(runner)
        start(runner)  # after a test that was cut short
        assert not torch.allclose(classifier.head((features, )), plain)
        end(runner)
        assert torch.equal(classifier.head((features, )), plain)


def test_detector():
    """Any model of MMDetection, with batch norms in backbone and neck."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(dict(
            type='RetinaNet',
            backbone=dict(type='AdderResNet', depth=18, stem_channels=8,
                          base_channels=8, out_indices=(0, 1, 2, 3)),
            neck=dict(type='AdderFPN', in_channels=[8, 16, 32, 64],
                      out_channels=8),
            bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8,
                           feat_channels=8))).eval()
    images = torch.rand(3, 3, 64, 64)
    plain = model.extract_feat(images)
    before = tracked(model)
    with robust_inference(model, 'R'):
        robust = model.extract_feat(images)
    assert not torch.allclose(robust[0], plain[0])
    assert all(map(torch.equal, before, model.buffers()))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(model.extract_feat(images)[0], plain[0])
