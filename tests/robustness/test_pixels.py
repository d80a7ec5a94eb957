"""Pixels in [0, 1] in place of what the models themselves take."""
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn import functional

from mmadder.errors import InputError
from mmadder.robustness import Attack, LossLogits, PixelClassifier


class Loss(nn.Module):
    """Cross entropy on given labels."""

    def __init__(self, model, labels):
        super().__init__()
        self.model, self.labels = model, labels

    def forward(self, images):
        return functional.cross_entropy(self.model(images), self.labels)


@pytest.mark.parametrize('name', ['FGSM', 'BIM', 'PGD', 'MIM', 'RFGSM'])
def test_attacking_the_loss_is_attacking_the_classifier(name, toy_set):
    model, images, labels = toy_set
    found = Attack(name)(
        LossLogits(Loss(model, labels)), images, torch.zeros_like(labels), 3)
    expected = Attack(name)(model, images, labels, 3)
    # Rounding may turn the sign of a gradient that is almost zero.
    assert ((found - expected).abs() < 1e-6).float().mean() > .999


@pytest.mark.parametrize('to_rgb', [False, True])
def test_pixel_classifier_is_the_classifier(to_rgb):
    """Through MMPretrain's own preprocessor and prediction."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='AdderResNetCIFAR', depth=20, base_channels=4,
                          stem_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='BNLogitsHead', num_classes=5, in_channels=16),
            data_preprocessor=dict(
                mean=[100., 110., 120.], std=[50., 60., 70.],
                to_rgb=to_rgb))).eval()
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    classifier = PixelClassifier(model)
    pixels = classifier.from_uint8(pictures)
    assert pixels.min() >= 0 and pixels.max() <= 1
    scores = torch.stack([sample.pred_score for sample in model.test_step(
        dict(inputs=pictures))])
    torch.testing.assert_close(
        classifier(pixels).softmax(1), scores, rtol=1e-4, atol=1e-5)
    model.data_preprocessor.pad_size_divisor = 32
    with pytest.raises(InputError, match='pad_size_divisor=1'):
        PixelClassifier(model)


def test_a_loss_is_one_number():
    with pytest.raises(InputError, match='Flatten is to return a loss'):
        LossLogits(nn.Flatten())(torch.rand(2, 3, 4, 4))
