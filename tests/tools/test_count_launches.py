"""What a training step launches, counted without a GPU."""
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / 'docs' / 'cuda.md'


@pytest.fixture
def run(call_tool, capsys):
    """Return a function that runs the tool and gives its lines."""

    def run_tool(*args):
        call_tool('analysis/count_launches.py', *args)
        return capsys.readouterr().out.splitlines()

    return run_tool


def test_scaling_of_one_layer(run):
    names = {name: int(number) for number, name in map(
        str.split, run('--names'))}
    assert names == dict(linalg_vector_norm=2, clamp=1, div=1, add=1, mul=1)
    assert 'scaling is six launches for each layer' in PAGE.read_text()


@pytest.mark.slow
def test_figures_of_the_page(run):
    rows = [line.split() for line in run()[1:]]
    assert [row[0] for row in rows] == ['CNN', 'ANN', 'AWN', 'centered']
    assert [row[3:] for row in rows] == [['0', '0']] + [['114', '19']] * 3
    text = PAGE.read_text()
    for row in rows:
        assert f'| {" | ".join(row[:4])} |' in text
