"""The measured columns of docs/scaling.md, from a made-up measurement."""
import json
from pathlib import Path

import pytest

from mmadder.benchmark import shapes

PAGE = Path(__file__).parents[2] / 'docs' / 'scaling.md'


@pytest.fixture
def fill(call_tool, tmp_path):
    """Return a function report -> rows with cells of a copy of the page."""
    page = tmp_path / 'scaling.md'
    page.write_text(PAGE.read_text())

    def run(report=None, code=None):
        if report is not None:
            (tmp_path / 'card.json').write_text(json.dumps(report))
        call_tool('analysis/fill_scaling.py', '--measurements', tmp_path,
                  '--page', page, code=code)
        return [line.split(' | ') for line in page.read_text().splitlines()
                if line.startswith(('| A100', '| H100'))
                and line.count('|') == 8]

    run.page = page
    return run


def report(gpu='NVIDIA H100 80GB HBM3'):
    """Each layer takes 1 ms forward, 2 ms backward; 1000 images/s trained."""
    layers = {str(layer) for layer in shapes.resnet18(32)}
    times = {direction: {layer: dict(conv2d=1., adder=seconds)
                         for layer in layers}
             for direction, seconds in (('forward', 1e-3),
                                        ('backward', 2e-3))}
    rows = [dict(network=network, layers=layers, precision=precision,
                 train=train)
            for network, train in (('ResNet-18', 1000.),
                                   ('Faster R-CNN R18-FPN', 10.))
            for layers, precision, train in (
                ('CNN', 'float32', 7.), ('AWN', 'TF32', 7.),
                ('AWN', 'float32', train))]
    return dict(machine=dict(gpu=gpu), steps=dict(
        operators=dict(figures={'without TF32': times}),
        networks=dict(figures=rows)))


EMPTY = ['not measured', 'not measured |']


def test_cells_are_filled(fill):
    assert len(shapes.resnet18(32)) == 19
    rows = fill(report())
    assert [row[-2:] for row in rows] == [
        EMPTY, [f'{19 * 3e-3 / 32 * 1_281_167:,.0f}', '1,281 |'],
        EMPTY, ['not measured', '1,655 |']]
    # What was there stays, and an empty folder empties the cells again.
    (fill.page.parent / 'card.json').unlink()
    fill()
    assert fill.page.read_text() == PAGE.read_text()


def test_what_failed_is_not_measured(fill):
    broken = report('NVIDIA A100-SXM4-80GB')
    del broken['steps']['operators']['figures']
    broken['steps']['networks']['figures'].pop(2)
    assert [row[-2:] for row in fill(broken)] == [
        EMPTY, EMPTY, ['not measured', '1,655 |'], EMPTY]


def test_another_card_fills_nothing(fill):
    assert all(row[-2:] == EMPTY for row in fill(report('NVIDIA H200')))


def test_a_page_without_the_rows_is_refused(fill, capsys):
    fill.page.write_text('# Something else\n')
    fill(report(), code=2)
    assert 'has 0 of the 4 rows to fill' in capsys.readouterr().err
