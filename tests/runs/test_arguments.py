"""Runs as a command line names them."""
import pytest
from recordings import write_run

from mmadder.errors import InputError
from mmadder.runs.arguments import (
    parse_groups,
    parse_named,
    parse_runs,
    split_name,
)


def test_run_arguments(tmp_path):
    for name in ('a', 'b'):
        write_run(tmp_path / name, epochs=1)
    assert list(parse_runs([str(tmp_path)])) == ['a', 'b']
    assert parse_runs([f'X={tmp_path / "a"}']) == {'X': tmp_path / 'a'}
    with pytest.raises(InputError, match="two runs are named 'a'"):
        parse_runs([str(tmp_path), str(tmp_path / 'a')])
    with pytest.raises(InputError, match='does not exist'):
        parse_runs([str(tmp_path / 'c')])
    (tmp_path / 'c').mkdir()
    with pytest.raises(InputError, match='is no work directory'):
        parse_runs([str(tmp_path / 'c')])


def test_a_folder_may_have_the_sign_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_run(tmp_path / 'lr=1,2', epochs=1)
    assert split_name(str(path)) == ('', str(path))
    assert split_name(f'X={path}') == ('X', str(path))
    assert parse_runs([str(path)]) == {'lr=1,2': path}
    assert parse_runs([f'X={path}']) == {'X': path}
    assert parse_groups(['lr=1,2', 'X=lr=1,2']) == {
        'lr=1,2': ['lr=1,2'], 'X': ['lr=1,2']}


def test_files_and_folders_by_name(tmp_path):
    (tmp_path / 'a.b').mkdir()
    texts = ['x/ann.json', 'X=x/ann.json', str(tmp_path / 'a.b')]
    assert list(parse_named(texts)) == ['ann', 'X', 'a.b']
    with pytest.raises(InputError, match="two runs are named 'ann'"):
        parse_named(['x/ann.json', 'ann=y.json'])


def test_seeds_are_one_group():
    assert parse_groups(['AWN=a,b/', 'c']) == {'AWN': ['a', 'b/'], 'c': ['c']}
    assert parse_groups(['a', 'b'], ['x', 'y']) == {'x': ['a'], 'y': ['b']}
    for texts, names, message in (
            (['a', 'b'], ['x'], '--names has 1 names for 2 runs'),
            (['a', 'a=b'], None, "two runs are named 'a'"),
            (['x='], None, "'x=' names no folder"),
            (['x=,'], None, "'x=,' names no folder")):
        with pytest.raises(InputError, match=message):
            parse_groups(texts, names)
