"""Pixels of a config, and statistics from them."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import CIFAR10
from torch import nn
from toy_classifier import toy

from mmadder.errors import InputError
from mmadder.models import build_model
from mmadder.robustness import (
    PixelClassifier,
    load_pixels,
    recalibrate,
    robust_inference,
)
from mmadder.robustness.data import balanced_sample


def test_balanced_sample():
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 3)
    chosen = balanced_sample(labels, 30, seed=0)
    assert len(set(chosen)) == 30
    assert sorted(labels[chosen].bincount().tolist()) == [3, 13, 14]
    assert chosen != sorted(chosen)
    assert chosen == balanced_sample(labels, 30, seed=0)
    assert chosen != balanced_sample(labels, 30, seed=1)


def test_recalibration():
    """Tracked statistics become those of the images; nothing else does."""
    model, images, _ = toy()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recalibrate(model, images, batch_size=20)
    norm = model[1]
    features = model[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, features.mean(1))
    torch.testing.assert_close(
        norm.running_var, features.var(1), rtol=1e-2, atol=0)
    assert norm.momentum == .1
    assert not any(module.training for module in model.modules())
    changed = [key for key, value in model.state_dict().items()
               if not torch.equal(value, before[key])]
    assert changed == ['1.running_mean', '1.running_var',
                       '1.num_batches_tracked']


def test_pixels_of_a_config(small):
    cfg = Config.fromfile(small / 'small.py')
    cfg.test_dataloader.dataset.data_root = str(small / 'cifar')
    classifier = PixelClassifier(build_model(cfg))
    images, labels = load_pixels(cfg, classifier, 10, seed=0)
    assert images.shape == (10, 3, 32, 32)
    assert sorted(labels.tolist()) == list(range(10))
    name = CIFAR10.METAINFO['classes'][labels[0]]
    files = [cv2.imread(str(small / 'cifar' / 'test' / name / f'{i}.png'))
             for i in range(2)]
    found = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert any(np.array_equal(found, file[..., ::-1]) for file in files)
    with pytest.raises(InputError, match='99 images were asked.* has 20'):
        load_pixels(cfg, classifier, 99)


def test_recalibration_that_fails_leaves_all_as_it_was(toy_set):
    """It left train mode and a momentum of None."""
    model, images, _ = toy_set
    norm = model[1]
    before = norm.running_mean.clone()
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        recalibrate(model, torch.cat([images[:, :, :5, :5]] * 2), 20)
    assert norm.momentum == .1 and not model.training
    assert torch.equal(norm.running_mean, before)
    with pytest.raises(InputError, match='Flatten has no batch norm'):
        recalibrate(nn.Flatten(), images)


def test_recalibration_with_a_last_batch_of_one():
    """It joins the one before: behind pooling it would have no variance."""
    model, images, _ = toy()
    model.append(nn.BatchNorm1d(4)).eval()
    recalibrate(model, images[:21], 20)
    torch.testing.assert_close(
        model[1].running_mean,
        model[0](images[:21]).transpose(0, 1).flatten(1).mean(1))
    with pytest.raises(InputError, match='at least 2 images, got 1'):
        recalibrate(model, images[:1])


def test_recalibration_inside_of_robust_inference():
    """No norm tracks anything there; nothing was said of it."""
    model, images, _ = toy()
    before = model[1].running_mean.clone()
    with robust_inference(model, 'R'), \
            pytest.raises(InputError, match='robust inference'):
        recalibrate(model, images, 20)
    assert torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize('wrapper', [
    dict(type='RepeatDataset', times=3),
    dict(type='ClassBalancedDataset', oversample_thr=.5)])
def test_pixels_of_a_repeated_set(small, wrapper):
    cfg = Config.fromfile(small / 'small.py')
    cfg.test_dataloader.dataset.data_root = str(small / 'cifar')
    classifier = PixelClassifier(build_model(cfg))
    expected = load_pixels(cfg, classifier, 10)
    cfg.train_dataloader = dict(dataset=dict(
        wrapper, dataset=dict(cfg.test_dataloader.dataset, pipeline=[])))
    for found, own in zip(load_pixels(cfg, classifier, 10, split='train'),
                          expected):
        assert torch.equal(found, own)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[])
    with pytest.raises(InputError, match='train set is a ConcatDataset'):
        load_pixels(cfg, classifier, 10, split='train')


def test_recalibration_without_dropout():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(.9), nn.Conv2d(3, 4, 3),
                          nn.BatchNorm2d(4))
    images = torch.rand(20, 3, 8, 8)
    recalibrate(model, images, 20)
    features = model[1](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[2].running_mean, features.mean(1))
