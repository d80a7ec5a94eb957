import sys

from mmadder.cli.output import print_once


def test_one_of_several_processes_prints(monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    print_once('alone')
    monkeypatch.setenv('RANK', '0')
    print_once('first', file=sys.stderr)
    monkeypatch.setenv('RANK', '1')
    print_once('second')
    assert capsys.readouterr() == ('alone\n', 'first\n')


def test_nothing_is_no_empty_line(monkeypatch, capsys):
    monkeypatch.delenv('RANK', raising=False)
    print_once(None)
    print_once('')
    assert capsys.readouterr().out == ''
