"""Counts of layers against known numbers, times by hand."""
import pytest

from mmadder.benchmark.cuda_time import (
    A100,
    H100,
    Layer,
    fpn_layers,
    resnet18_layers,
    seconds,
)


def test_resnet18_has_the_known_operations():
    """1,814,073,344 less stem and classifier of 118,525,952."""
    layers = resnet18_layers(224, 224)
    assert len(layers) == 19
    assert sum(layer.terms for layer in layers) == 1_695_547_392


def test_fpn_covers_four_stages():
    layers = fpn_layers(64, 96)
    assert [layer.size for layer in layers[::2]] == [
        (16, 24), (8, 12), (4, 6), (2, 3)]
    assert layers[0].terms == 64 * 256 * 16 * 24


def test_the_limit_is_lanes_or_issue_slots():
    # 2.15 instructions, 2 of them on 64 or 128 lanes
    assert A100.terms_per_second(2.15, 2) == pytest.approx(
        108 * 1.41e9 * 64 / 2)
    assert H100.terms_per_second(2.15, 2) == pytest.approx(
        132 * 1.98e9 * 128 / 2.15)


def test_rows_are_padded_to_the_tile():
    loops = {(op, rows): (2., 2.) for op in ('forward', 'input_grad')
             for rows in (32, 64, 128)}
    exact, padded = (
        seconds([Layer(128, channels, 1, (10, 10))], 7, H100, loops)
        for channels in (128, 192))
    assert exact['forward'] == pytest.approx(
        7 * 128 * 128 * 100 / (132 * 1.98e9 * 64))
    assert padded['forward'] == pytest.approx(2 * exact['forward'])
    assert padded['input_grad'] == pytest.approx(1.5 * exact['input_grad'])
