"""Words and numbers of C, read back."""
import ast

import pytest

from mmadder.integer.c_text import (
    comment,
    identifiers,
    int32,
    strings,
    wrapped,
)


def test_identifiers_are_words_of_their_own():
    found = identifiers(
        ['a', 'a b', 'a_b', 'a-b', 'for', '0', '_x', 'ü', 'EOF'])
    assert found == {
        'a': 'a', 'a b': 'a_b', 'a_b': 'a_b_2', 'a-b': 'a_b_3',
        'for': 'output_for', '0': 'output_0', '_x': 'output__x',
        'ü': 'output__', 'EOF': 'output_EOF'}


@pytest.mark.parametrize('text, expected', [
    ('layer1.0 (conv)', 'layer1.0 (conv)'), ('a*/b', 'a__b'),
    ('a\nb\\', 'a_b_'), ('ü??/', '____')])
def test_comments_do_not_end(text, expected):
    assert comment(text) == expected


def test_numbers():
    assert int32(-5) == '-5'
    assert int32(2**31 - 1) == '2147483647'
    assert eval(int32(-2**31)) == -2**31 and '2147483648' not in \
        int32(-2**31)


def test_strings():
    """C's strings of these escapes are Python's."""
    content = bytes(range(256)) + b'??/1\x00\x001'
    lines = strings(content).splitlines()
    assert b''.join(ast.literal_eval(f'b{line}') for line in lines) == content
    assert '?' not in strings(content) and strings(b'') == '""'
    assert max(map(len, lines)) <= 130


def test_lines():
    text = wrapped([*map(str, range(100)), '-2147483647 - 1'])
    assert max(map(len, text.splitlines())) <= 79
    assert text.startswith('    0, 1, ')
    assert [int(item) for item in text.split('-')[0].split(',')[:-1]] == \
        list(range(100))
    assert '-2147483647 - 1,' in text
    assert wrapped(['a'], 8) == '        a,\n' and wrapped([]) == ''
