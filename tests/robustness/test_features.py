"""Features beside tracked statistics, and what mode R makes of adders."""
import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from mmadder.layers import AdderConv2d
from mmadder.robustness import norm_inputs, robust_inference


@pytest.mark.parametrize('shape', [(6, 4), (2, 4, 3, 5)])
def test_definition(shape):
    torch.manual_seed(0)
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4).eval()
    norm.running_var = torch.rand(4) + .5
    model, x = nn.Sequential(norm, nn.ReLU(), norm), torch.randn(shape)
    (found, ) = norm_inputs(model, lambda: model(x))
    channels = np.moveaxis(x.numpy(), 1, 0).reshape(4, -1)
    channels = channels / np.sqrt(norm.running_var.numpy() + norm.eps)[
        :, None]
    spread = np.sort(channels.std(1))[1]  # torch's median of four
    common = channels.mean(0).var() / channels.var(1).mean()
    assert found['layer'] == '0'
    np.testing.assert_allclose(
        (found['spread'], found['common']), (spread, common), rtol=1e-5)


def test_common_part():
    norm = nn.BatchNorm1d(2).eval()
    x = torch.randn(9, 1)
    for other, share in ((x, 1.), (-x, 0.)):
        pair = torch.cat([x, other], 1)
        (found, ) = norm_inputs(norm, lambda pair=pair: norm(pair))
        assert found['common'] == pytest.approx(share, abs=1e-5)


def test_no_norm_no_figures():
    model = nn.Conv2d(1, 1, 1)
    assert norm_inputs(model, lambda: model(torch.zeros(1, 1, 2, 2))) == []


def spread_in(modes, scale, center=False):
    """{mode: what the last of eight random layers gets under an attack}."""
    torch.manual_seed(0)
    layers = []
    for _ in range(8):
        conv = AdderConv2d(32, 32, 3, padding=1, bias=False, center=center)
        nn.init.normal_(conv.weight, std=scale)
        layers += [conv, nn.BatchNorm2d(32, momentum=None), nn.ReLU()]
    model = nn.Sequential(*layers)
    clean = torch.randn(4, 32, 12, 12).relu()
    with torch.no_grad():
        model.train()(clean)
    model.eval()
    attacked = clean.clone()
    attacked[..., :6] *= 2
    found = {}
    for mode in modes:
        with contextlib.nullcontext() if mode == 'eval' else \
                robust_inference(model, mode):
            *_, found[mode] = norm_inputs(model, lambda: model(attacked))
    return found


@pytest.mark.parametrize('scale, bounded', [(.5, False), (50., True)])
def test_mode_r_lets_adders_run_away(scale, bounded):
    """What all channels have in common grows in each layer of an adder
    network whose weights are as small as its features, as AWN keeps them;
    with tracked means ReLU ends it, and with large weights signs differ."""
    found = spread_in(['eval', 'R'], scale)
    assert found['eval']['spread'] < 2
    if bounded:
        assert found['R']['spread'] < 2 and found['R']['common'] < .1
    else:
        assert found['R']['spread'] > 100 and found['R']['common'] > .9


def test_mode_max_keeps_the_same_adders_in_bounds():
    """The part in common stays; no layer hands more of it on."""
    found = spread_in(['max'], .5)['max']
    assert found['spread'] < 2 and found['common'] > .9


def test_centered_adders_do_not_run_away_in_mode_r():
    """What all channels have in common is what centering takes off."""
    found = spread_in(['R'], .5, center=True)['R']
    assert found['spread'] < 2 and found['common'] < .1
