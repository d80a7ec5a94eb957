"""Rounding to half types, against what is known of it."""
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from settling import settle
from small_classifier import make_classifier
from torch import nn

from mmadder.analysis import half_precision
from mmadder.layers import AdderConv2d
from mmadder.models import build_model
from mmadder.ops import reference

CONFIG = Path(__file__).parents[2].joinpath(
    'configs/digits/ann-awn-centered-resnet18_1xb32-5e_digits.py')


def test_noise_of_a_known_step():
    """bfloat16 steps by 16 from 2048 on: a uniform error, 16 / sqrt(12)."""
    generator = torch.Generator().manual_seed(0)
    output = -3000 + 40 * torch.randn(8, 3, 40, 40, generator=generator)
    noise = half_precision.rounding_noise(output, torch.bfloat16)
    assert noise == pytest.approx(16 / math.sqrt(12) / 40, rel=0.02)


def test_channels_that_do_not_vary_are_left_out():
    output = torch.zeros(2, 2, 3, 3)
    output[:, 0] = torch.arange(18.).view(2, 3, 3)
    assert half_precision.rounding_noise(output, torch.float16) == 0


def test_each_call_of_each_adder():
    model = nn.Sequential(
        AdderConv2d(3, 6, 3, weight_norm='AWN'), nn.BatchNorm2d(6),
        AdderConv2d(6, 6, 3, stride=2, groups=6)).eval()
    x = torch.randn(4, 3, 9, 8)
    expected = model(x)
    first, second = half_precision.study_model(model, lambda: model(x))
    assert (first['layer'], first['taps'], second['taps']) == ('0', 27, 9)
    weight = model[0].normalized_weight.detach().double()
    y = reference.adder_conv2d(x.double(), weight)
    assert first['mean'] == pytest.approx(y.mean().item(), rel=1e-5)
    assert first['deviation'] == pytest.approx(
        y.var((0, 2, 3), correction=0).mean().sqrt().item(), rel=1e-5)
    assert first['raw'][torch.bfloat16] > 4 * first['raw'][torch.float16] > 0
    assert 'centered' not in second  # one filter in each group
    half_precision.table([first, second])
    assert torch.equal(model(x), expected)  # no hook stays


def test_centered_outputs_round_less():
    model = make_classifier()
    rows = half_precision.study_model(
        model, lambda: model(torch.rand(4, 3, 32, 32), mode='tensor'))
    assert len(rows) == 19
    deep = [row for row in rows if row['taps'] >= 288]
    assert deep and all(
        row['centered'][dtype] < row['raw'][dtype] / 2
        for row in deep for dtype in half_precision.HALF_TYPES)


def test_the_tool_evaluates(call_tool, capsys, digits, tmp_path):
    model = settle(build_model(Config.fromfile(CONFIG)),
                   torch.randn(8, 3, 48, 48))
    checkpoint = tmp_path / 'a.pth'
    torch.save(model.state_dict(), checkpoint)
    call_tool('analysis/half_precision.py', CONFIG, checkpoint, '--data-root',
              digits, '--images', 4, '--evaluate', '--cfg-options',
              'test_dataloader.num_workers=0',
              'test_dataloader.persistent_workers=False')
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'a.pth, 4 test images'
    assert [line.split()[0] for line in lines[-3:]] == [
        'float32', 'float16', 'bfloat16']
