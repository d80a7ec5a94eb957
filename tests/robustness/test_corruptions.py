"""Common corruptions of pixels, and their columns."""
import numpy as np
import pytest
import torch

from mmadder.errors import InputError
from mmadder.robustness import (
    Corruption,
    Evaluation,
    corruption_columns,
    corruptions,
)
from mmadder.robustness.corruptions import CORRUPTIONS


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randint(256, (3, 3, 32, 40)) / 255


def test_contrast_by_hand(images):
    """Severity 3 leaves a fifth of each channel's distance to its mean."""
    mean = images.mean((2, 3), keepdim=True)
    expected = (images - mean) * .2 + mean
    found = Corruption('contrast', 3)(images)
    assert (found - expected).abs().max() <= 1 / 255  # of 8 bits
    assert found.dtype == images.dtype
    torch.testing.assert_close(found * 255, (found * 255).round())


def test_noise_by_hand(images):
    """Severity 1 has a deviation of 0.08; grey clips nothing."""
    grey = torch.full_like(images, .5)
    noise = Corruption('gaussian_noise', 1)(grey, seed=7) - 128 / 255
    assert noise.std().item() == pytest.approx(.08, rel=.03)
    np.random.seed(7)
    expected = np.random.normal(size=(32, 40, 3), scale=.08)
    assert (noise[0].permute(1, 2, 0) - expected).abs().max() <= 1 / 255


@pytest.mark.parametrize('name', [*CORRUPTIONS, 'impulse_noise'])
def test_grows_and_is_reproduced(name, images):
    """Smooth pictures: noise would hide what a compression does."""
    smooth = images[..., :8, :8].repeat_interleave(4, 2).repeat_interleave(
        4, 3)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    weak, strong, again = (Corruption(name, severity)(smooth, seed=3)
                           for severity in (1, 5, 5))
    assert torch.equal(strong, again)
    assert 0 < (weak - smooth).abs().mean() < (strong - smooth).abs().mean()
    assert strong.min() >= 0 and strong.max() <= 1
    assert (np.random.get_state()[1] == state).all()
    other = Corruption(name, 5)(smooth, seed=4)
    assert torch.equal(strong, other) == ('noise' not in name)


def test_no_images():
    assert Corruption('contrast', 1)(torch.rand(0, 3, 32, 32)).shape == (
        0, 3, 32, 32)


def test_columns(toy_set):
    """In each mode the same corrupted images, asked in the mode."""
    model, images, labels = toy_set
    model = torch.nn.Sequential(torch.nn.AvgPool2d(4), model)
    images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    evaluation = Evaluation(model, images, labels, 20, seed=5)
    columns = corruption_columns(['gaussian_noise'], images=20)
    evaluation.run(['eval', 'r'], columns)
    corrupted = columns[4].attack(images[:20], 5)
    rows = evaluation.results['rows']
    for mode in ('eval', 'r'):
        with evaluation.inference(mode), torch.no_grad():
            right = model(corrupted).argmax(1) == labels[:20]
        entry = rows[mode]['gaussian_noise severity 5']
        assert entry['accuracy'] == pytest.approx(right.float().mean().item())
        assert entry['images'] == 20


def test_wrong_input(images, monkeypatch):
    with pytest.raises(InputError, match="corruption 'rain', expected one"):
        Corruption('rain', 1)
    with pytest.raises(InputError, match='from 1 to 5, got 6'):
        Corruption('fog', 6)
    fog = Corruption('fog', 1)
    with pytest.raises(InputError, match=r'in \[0, 1\]'):
        fog(images * 255)
    for wrong in (images[:, :1], images[..., :31]):
        with pytest.raises(InputError, match='RGB images of 32 pixels'):
            fog(wrong)
    monkeypatch.setattr(
        corruptions.importlib.util, 'find_spec', lambda _: None)
    with pytest.raises(InputError, match='pip install imagecorruptions-imaug'):
        Corruption('fog', 1)
