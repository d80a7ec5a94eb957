"""Style of figures, and that they are written whole."""
import cv2
import pytest

from mmadder.errors import InputError
from mmadder.reporting.figures import (
    COLOURS,
    GRID,
    MARKERS,
    colours_of,
    grid,
    mosaic,
    save_figure,
    subplots,
)


def test_every_axis_has_our_style():
    figure, axes = grid(2, 1, 3, 2)
    assert axes.shape == (2, 1) and list(figure.get_size_inches()) == [3, 4]
    other, named = mosaic([['a', 'b'], ['c', 'c']], 5, [2, 1])
    assert set(named) == set('abc') and list(other.get_size_inches()) == [5, 3]
    for axis in (*axes.flat, *named.values(), subplots()[1]):
        assert not axis.spines['top'].get_visible()
        assert axis.xaxis.get_gridlines()[0].get_color() == GRID


def test_each_curve_has_a_colour_of_its_own():
    names = [str(i) for i in range(len(COLOURS))]
    found = colours_of(names)
    assert list(found) == names and len(set(found.values())) == len(names)
    assert len(set(MARKERS)) == len(COLOURS)
    with pytest.raises(InputError, match='^9 seeds are too many for one '
                       'figure, at most 8 can be told apart; drop one$'):
        colours_of(range(9), 'seeds', 'drop one')


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    figure, axis = subplots(figsize=(2, 2))
    axis.plot([1, 2])
    path = tmp_path / 'new' / 'a.png'
    save_figure(figure, path)
    assert cv2.imread(str(path)).std() > 5
    before = path.read_bytes()

    def fail(file):
        file.write_bytes(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, 'savefig', fail)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('name', ['a', 'a.', 'a.doc'])
def test_a_name_that_is_no_picture_is_refused(tmp_path, name):
    figure, _ = subplots(figsize=(2, 2))
    with pytest.raises(InputError, match=r'must end with .*\.pdf, .*\.png'):
        save_figure(figure, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_other_formats(tmp_path):
    figure, _ = subplots(figsize=(2, 2))
    save_figure(figure, tmp_path / 'a.PDF')
    assert (tmp_path / 'a.PDF').read_bytes().startswith(b'%PDF')
