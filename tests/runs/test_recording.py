"""Recordings of runs that went well, were resumed, killed or never began."""
import json

import numpy as np
import pytest
from recordings import write_records, write_run

from mmadder.errors import InputError
from mmadder.runs.recording import is_recorded, read_recording

LAYER = 'backbone.layer1.0.conv2'


def test_reads_layers_series_and_histograms(tmp_path):
    run = read_recording(write_run(tmp_path, epochs=3, growth=2.))
    assert run.steps == [1, 2, 3] and run.unit == 'epoch'
    assert run.layers[0] == 'backbone.conv1' and run.kind(LAYER) == 'adder'
    assert len(run.adders()) == 3 and run.default_layer() == LAYER
    assert run.series(LAYER, 'weight_var').tolist() == [4, 8, 16]
    counts, edges = run.histogram(LAYER, 'weight', 2)
    assert counts.sum() == 20000 and len(edges) == 101
    last, _ = run.histogram(LAYER, 'weight')
    assert not np.array_equal(counts, last)


def test_of_an_iteration_run_twice_the_later_wins(tmp_path):
    write_records(tmp_path / '20260101_000000', [1, 2, 3], growth=2.)
    write_records(tmp_path / '20260102_000000', [3, 4], growth=1.)
    run = read_recording(tmp_path)
    assert run.steps == [1, 2, 3, 4]
    assert run.series(LAYER, 'weight_var').tolist() == [4, 8, 2, 2]
    assert '20260102' in str(run.histograms[3])
    assert '20260101' in str(run.histograms[2])


def test_a_recording_begun_anew_is_not_the_one_before(tmp_path):
    write_records(tmp_path / '20260101_000000', [1, 2, 3, 4], growth=2.)
    write_records(tmp_path / '20260102_000000', [1, 2], growth=1.)
    run = read_recording(tmp_path)
    assert run.steps == sorted(run.histograms) == [1, 2]
    assert run.series(LAYER, 'weight_var').tolist() == [2, 2]


def test_null_and_absent_values_are_nan(tmp_path):
    def change(epoch, entries):
        if epoch == 2:
            entries[LAYER]['feature_var'] = None
            del entries[LAYER]['bn_mean']

    write_records(tmp_path / '1', [1, 2], change=change)
    run = read_recording(tmp_path)
    for key in ('feature_var', 'bn_mean'):
        assert np.isnan(run.series(LAYER, key)).tolist() == [False, True]
    with pytest.raises(InputError, match="no histogram of 'feature'"):
        run.histogram(LAYER, 'feature', 2)


def test_iterations_are_counted_where_epochs_are_not(tmp_path):
    folder = tmp_path / '1' / 'vis_data'
    write_records(folder.parent, [1, 2])
    text = (folder / 'statistics.jsonl').read_text()
    (folder / 'statistics.jsonl').write_text(
        text.replace('"epoch": 2', '"epoch": 1'))
    for epoch in (1, 2):
        (folder / 'histograms' / f'epoch_{epoch}.npz').rename(
            folder / 'histograms' / f'iter_{10 * epoch}.npz')
    run = read_recording(tmp_path)
    assert run.unit == 'iteration' and run.steps == [10, 20]
    assert run.histogram(LAYER, 'weight', 10)[0].sum() == 20000


def test_missing_and_empty_recordings(tmp_path):
    with pytest.raises(InputError, match='does not exist'):
        read_recording(tmp_path / 'none')
    with pytest.raises(InputError, match='train with --record'):
        read_recording(tmp_path)
    file = tmp_path / '1' / 'vis_data' / 'statistics.jsonl'
    file.parent.mkdir(parents=True)
    file.write_text('')
    with pytest.raises(InputError, match='jsonl is empty'):
        read_recording(tmp_path)


def test_a_line_cut_off_at_the_end_is_left_out(tmp_path):
    write_records(tmp_path / '1', [1, 2])
    file = tmp_path / '1' / 'vis_data' / 'statistics.jsonl'
    lines = file.read_text().splitlines()
    file.write_text(f'{lines[0]}\n{lines[1][:50]}')
    assert read_recording(tmp_path).steps == [1]
    file.write_text(f'{lines[0][:50]}\n{lines[1]}\n')
    with pytest.raises(InputError, match='line 1 of'):
        read_recording(tmp_path)


def test_unknown_names_come_with_the_nearest(tmp_path):
    run = read_recording(write_run(tmp_path, epochs=2))
    with pytest.raises(InputError, match='did you mean backbone.layer1.0.c'):
        run.series('backbone.layer1.conv2', 'weight_var')
    with pytest.raises(InputError, match='did you mean weight_var'):
        run.series(LAYER, 'weight_variance')
    with pytest.raises(InputError, match='epoch 7; it has those of 1 to 2'):
        run.histogram(LAYER, 'weight', 7)
    run.histograms[2].write_bytes(b'PK damaged')
    with pytest.raises(InputError, match='epoch_2.npz is damaged'):
        run.histogram(LAYER, 'weight')


def test_lines_of_something_else(tmp_path):
    write_records(tmp_path / '1', [1, 2])
    file = tmp_path / '1' / 'vis_data' / 'statistics.jsonl'
    whole = file.read_text()
    for content in ([], dict(iter=1, epoch=1), dict(
            iter=1, epoch=1, layers=[]), dict(layers={})):
        file.write_text(f'{json.dumps(content)}\n{whole}')
        with pytest.raises(InputError, match='line 1 of .* is no record'):
            read_recording(tmp_path)


def test_the_record_of_an_epoch(tmp_path):
    assert not is_recorded(tmp_path)
    run = read_recording(write_run(tmp_path, epochs=3))
    assert is_recorded(tmp_path)
    assert run.record_at(2)['iter'] == 20
    assert run.record_at() == run.records[-1]
    with pytest.raises(InputError, match='no record of epoch 9, only of 1 t'):
        run.record_at(9)
