"""The loss of distillation against its formula; the teacher stays outside."""
import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mmadder.errors import InputError
from mmadder.models import DistilledClassifier, build_model

CONFIG = Path(__file__).parents[2].joinpath(
    'configs/cifar10/ann-awn-centered-resnet20_kd_1xb256_cifar10.py')
TEACHER = '''
default_scope = 'mmpretrain'
model = dict(
    type={kind!r},
    data_preprocessor=dict(type='ClsDataPreprocessor', mean={mean}, std=[2.],
                           to_rgb={turned}),
    backbone=dict(type='AdderResNetCIFAR', depth=20,
                  conv_cfg=dict(type='Conv2d')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='BNLogitsHead', num_classes={classes}, in_channels=64))
'''


@pytest.fixture
def make(tmp_path):
    """Return a function that gives (student, its teacher)."""

    def make_pair(kind='ImageClassifier', mean=(1.,), classes=3,
                  turned=False, **changes):
        config = tmp_path / 'teacher.py'
        config.write_text(TEACHER.format(
            kind=kind, mean=list(mean), classes=classes, turned=turned))
        torch.manual_seed(0)
        cfg = Config.fromfile(config)
        teacher = build_model(cfg)
        torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
        cfg.model.update({
            'type': 'DistilledClassifier', 'teacher_config': str(config),
            'teacher_ckpt': str(tmp_path / 'teacher.pth'), **changes})
        cfg.model.data_preprocessor.update(mean=[1.], to_rgb=False)
        cfg.model.head.num_classes = 3
        cfg.model.backbone.conv_cfg = dict(
            type='AdderConv2d', weight_norm='AWN', center=True)
        return build_model(cfg), teacher.eval()

    return make_pair


def batch():
    generator = torch.Generator().manual_seed(1)
    samples = [DataSample().set_gt_label(i % 3) for i in range(4)]
    return torch.randn(4, 3, 16, 16, generator=generator), samples


def test_loss_is_the_formula(make):
    student, teacher = make(temperature=2., distill_weight=0.5)
    images, samples = batch()
    twin = copy.deepcopy(student)
    losses = student.loss(images, samples)
    p, q = ((model.head(model.extract_feat(images)) / 2).softmax(1).double()
            for model in (teacher, twin))
    expected = 0.5 * 4 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(losses['loss_distill'].double(), expected)
    torch.testing.assert_close(
        losses['loss'], twin.head.loss(twin.extract_feat(images), samples)[
            'loss'])


def test_a_step_trains_the_student_alone(make):
    student, _ = make()
    teacher = student.teacher('cpu')
    before = copy.deepcopy(teacher.state_dict())
    loss, _ = student.parse_losses(student.loss(*batch()))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key])
    assert student.head.bn.num_batches_tracked == 1  # asked once
    assert not student.head._forward_hooks


def test_the_teacher_is_no_part_of_the_model(make):
    student, teacher = make()
    student.loss(*batch())
    assert not any('teacher' in name for name, _ in student.named_modules())
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert len([*student.parameters()]) > len([*teacher.parameters()])
    assert set(student.state_dict()) >= set(teacher.state_dict())


def test_prediction_needs_no_teacher(make):
    student, _ = make(teacher_config='none.py', teacher_ckpt='none.pth')
    assert isinstance(student, DistilledClassifier)
    images, samples = batch()
    assert len(student.eval().predict(images, samples)) == 4
    with pytest.raises(InputError, match='teacher_config none.py does not'):
        student.loss(images, samples)


@pytest.mark.parametrize('changes, message', [
    (dict(teacher_ckpt='none.pth'), 'teacher_ckpt none.pth does not exist'),
    (dict(turned=True), 'to_rgb .* is False and True of the teacher'),
    (dict(mean=(3.,)), r'mean .* is \[1.0\] and \[3.0\] of the teacher'),
    (dict(classes=5), 'teacher answers with 5 classes, the student with 3')])
def test_teachers_that_do_not_fit(make, changes, message):
    student, _ = make(**changes)
    with pytest.raises(InputError, match=message):
        student.loss(*batch())


@pytest.mark.parametrize('name', ['temperature', 'distill_weight'])
def test_wrong_numbers(make, name):
    with pytest.raises(ValueError, match=f'{name} must be positive, got 0'):
        make(**{name: 0})


def test_shipped_files_are_found_from_anywhere(tmp_path, monkeypatch):
    """The config's own teacher, which is in weights/."""
    cfg = Config.fromfile(CONFIG)
    monkeypatch.chdir(tmp_path)
    student = build_model(cfg)
    images = torch.randn(2, 3, 32, 32)
    losses = student.loss(
        images, [DataSample().set_gt_label(i) for i in range(2)])
    assert losses['loss_distill'] > 0
    assert isinstance(student.teacher('cpu').backbone, nn.Module)
