from mmadder.text import nearest, shorten


def test_short_lists_are_whole():
    assert shorten('') == ''
    assert shorten('ab', 2) == 'a, b'
    assert shorten(range(3)) == '0, 1, 2'


def test_only_names_alike_are_proposed():
    assert nearest('SGDD', ['SGD', 'Adam']) == ', did you mean SGD?'
    assert nearest('Lion', ['SGD', 'Adam']) == ''


def test_long_lists_say_how_many_are_left_out():
    assert shorten('abcd', 2) == 'a, b and 2 more'
    assert shorten('abcd', 3, separator='; ') == 'a; b; c; and 1 more'
    assert shorten(i for i in range(11)).endswith('9 and 1 more')
