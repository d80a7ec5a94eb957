"""Two runs for the tests of everything that reads runs."""
import pytest
from recordings import write_run

from mmadder.runs.arguments import parse_runs

STEADY = [60., 70, 75, 78, 80, 82, 84, 86, 88, 90]
JUMPY = [60., 70, 75, 78, 88, 70, 92, 74, 96, 90]


@pytest.fixture
def runs(tmp_path):
    """Two runs of ten epochs: one steady, one whose weights grow."""
    write_run(tmp_path / 'steady', 10, growth=1., values=STEADY)
    write_run(tmp_path / 'jumpy', 10, growth=1.5, values=JUMPY)
    return parse_runs([str(tmp_path)])
