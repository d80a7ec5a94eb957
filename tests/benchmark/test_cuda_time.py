"""Calculated times by hand."""
import pytest

from mmadder.benchmark.cuda_time import A100, H100, seconds
from mmadder.benchmark.shapes import Layer

LOOPS = {(op, rows): (2., 2.) for op in ('forward', 'input_grad')
         for rows in (32, 64, 128)}


def test_the_limit_is_lanes_or_issue_slots():
    # 2.15 instructions, 2 of them on 64 or 128 lanes
    assert A100.terms_per_second(2.15, 2) == pytest.approx(
        108 * 1.41e9 * 64 / 2)
    assert H100.terms_per_second(2.15, 2) == pytest.approx(
        132 * 1.98e9 * 128 / 2.15)


def test_rows_are_padded_to_the_tile():
    exact, padded = (
        seconds([Layer(1, 128, (10, 10), channels, 1)], 7, H100, LOOPS)
        for channels in (128, 192))
    assert exact['forward'] == pytest.approx(
        7 * 128 * 128 * 100 / (132 * 1.98e9 * 64))
    assert padded['forward'] == pytest.approx(2 * exact['forward'])
    assert padded['input_grad'] == pytest.approx(1.5 * exact['input_grad'])


def test_images_count_and_not_the_batch():
    one, many = (seconds([Layer(batch, 64, (10, 9), 64, 3, 2)], 12, A100,
                         LOOPS) for batch in (1, 4))
    assert one == many
    assert one['weight_grad'] == pytest.approx(
        12 * 64 * 64 * 9 * 5 * 5 / (0.7 * 108 * 1.41e9 * 64))
