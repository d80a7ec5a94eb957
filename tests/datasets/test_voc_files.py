"""What is read of a set's files; test_voc.py has whole sets."""
import pytest

from mmadder.datasets.voc_files import (
    VocObject,
    decode,
    parse_annotation,
    picture_names,
)
from mmadder.errors import InputError

TEXT = b'''<annotation><filename> a.png </filename>
<size><width>30</width><height>20</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox>
<xmin>1</xmin><ymin>2.7</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><bndbox>
<xmin>3</xmin><ymin>4</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>
</annotation>'''


def test_annotation():
    found = parse_annotation(TEXT)
    assert found.size == (30, 20)
    assert found.filename == 'a.png'
    assert found.objects == [VocObject('cat', True, [(1, 2, 30, 20)]),
                             VocObject('dog', False, [(3, 4, 3, 4)])]


@pytest.mark.parametrize('old, new, size', [
    (b'<width>30', b'<width>', None), (b'<width>30', b'<width>0', None),
    (b'<width>30', b'<width>30.0', (30, 20)), (b'size>', b'sizes>', None)])
def test_size_that_says_nothing_is_none(old, new, size):
    assert parse_annotation(TEXT.replace(old, new)).size == size


@pytest.mark.parametrize('old, new, message', [
    (b'<width>30', b'<width>wide', "<size> needs a number in <width>, got"),
    (b'cat', b' ', 'object 1 has no <name>'),
    (b'<xmax>3<', b'<xmax>2<', r'object 2 \(dog\) has xmin > xmax'),
    (b'</annotation>', b'', 'is not XML')])
def test_errors_say_what_is_wrong(old, new, message):
    with pytest.raises(InputError, match=message):
        parse_annotation(TEXT.replace(old, new))


def test_names_are_taken_whole_where_there_is_an_annotation():
    known = {'a', 'b 1', 'c.png', 'd'}
    assert picture_names(
        ['a', 'a.JPG', 'b 1', 'c.png', 'd -1', ' d.jpeg  1', '', 'e 0'],
        known.__contains__) == ['a', 'a', 'b 1', 'c.png', 'd', 'd', 'e 0']


def test_encodings_of_split_files():
    for encoding in ('utf-8', 'utf-8-sig', 'utf-16'):
        assert decode('ü\n'.encode(encoding)) == 'ü\n'
    with pytest.raises(InputError, match='is not UTF-8'):
        decode(b'\xfc')
