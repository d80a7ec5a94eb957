from mmadder.text import shorten


def test_shorten():
    assert shorten([]) == ''
    assert shorten('ab') == 'a, b'
    assert shorten(range(4), 2) == '0, 1 and 2 more'
    assert shorten({'a': 1, 'b': 2}, 1, '\n  ') == 'a\n  and 1 more'
