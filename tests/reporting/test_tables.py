"""Tables on terminals, in pipes and as Markdown."""
import io
import sys

import numpy as np
import pytest

from mmadder.reporting.tables import markdown_table, number, print_table


def test_columns_are_aligned(capsys):
    print_table(('run', 'value'), [('a', 1.5), (), ('long', None)])
    assert [line.rstrip() for line in
            capsys.readouterr().out.splitlines()] == [
        'run   value', 'a       1.5', '', 'long      -']


def test_a_pipe_gets_all_of_it_and_no_colours(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '20')
    names = [f'backbone.layer{i}.0.conv1' for i in range(30)]
    print_table(names, [names, ['[red]x[/red]', ':smile:', *names[2:]]])
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == first.split() == names
    assert second.split() == ['[red]x[/red]', ':smile:', *names[2:]]


def test_a_terminal_shows_the_header_bold(monkeypatch):
    class Terminal(io.StringIO):

        def isatty(self):
            return True

    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('NO_COLOR', raising=False)
    monkeypatch.setattr(sys, 'stdout', Terminal())
    print_table(('a', 'b'), [(1, 2)])
    assert '\x1b[1m' in sys.stdout.getvalue()


def test_markdown():
    text = markdown_table(('run', 'mAP'), [('a|b', .5), ('long er', None)])
    assert text.splitlines() == [
        '| run     | mAP |', '|---------|----:|', r'| a\|b    | 0.5 |',
        '| long er |   - |']


@pytest.mark.parametrize('value, text', [
    (24949.3, '24,949'), (float('nan'), '-'), (np.float32('nan'), '-'),
    (None, '-'), (0.123456, '0.1235'), (np.float64(2), '2'), (7, '7'),
    (12345, '12345'), (3e8, '3.00e+08'), ('x', 'x')])
def test_numbers(value, text):
    assert number(value) == text


def test_digits():
    assert number(0.123456, 2) == '0.12'
