"""Files of results, and their sweeps."""
import pytest

from mmadder.errors import InputError
from mmadder.robustness.results import read_results, sweep_points


@pytest.mark.parametrize('text', [
    '[]', '{', '{"settings": {}}', '{"settings": 1, "rows": {}}'])
def test_files_of_others(tmp_path, text):
    path = tmp_path / 'a.json'
    with pytest.raises(InputError, match="result '.*a.json' does not exist"):
        read_results(path)
    path.write_text(text)
    with pytest.raises(InputError, match='a.json is no result of tools'):
        read_results(path)
    path.write_text('{"settings": {}, "rows": {}}')
    assert read_results(path) == dict(settings={}, rows={})


def test_points_are_sorted():
    row = {str(steps): dict(
        accuracy=figure, column=dict(note=note, attack=dict(steps=steps)))
        for steps, figure, note in ((20, .1, 'steps'), (3, .5, 'steps'),
                                    (7, .2, ''), (5, .3, 'eps=0.1'))}
    row['Clean'] = dict(accuracy=1., column=dict(note='', attack=None))
    assert sweep_points(row, 'steps', 'accuracy') == [(3, .5), (20, .1)]
