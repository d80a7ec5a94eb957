"""Files of a PASCAL VOC data set, as tools write them.

XML of any encoding that Python knows, objects with several boxes, sizes that
are missing; split files with byte order marks, suffixes and flags.
"""
import codecs
import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree

from mmadder.errors import InputError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
NO = ('', '0', 'false', 'no', 'unspecified')
YES = ('1', 'true', 'yes')
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: 'utf-8-sig', codecs.BOM_UTF16_LE: 'utf-16',
    codecs.BOM_UTF16_BE: 'utf-16'}
DECLARATION = re.compile(
    r'^\s*<\?xml[^>]*?encoding=["\']([\w.-]+)["\'][^>]*\?>', re.ASCII)
FLAG = re.compile(r'(.*\S)\s+(?:-1|0|1)')  # VOC's lists of one class


class VocObject(NamedTuple):
    """One ``<object>``.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the file, counted from 1 and
            ends included, as VOC does; several where the object has several.
    """
    name: str
    difficult: bool
    boxes: list[tuple[int, int, int, int]]


class VocAnnotation(NamedTuple):
    """One annotation file.

    Attributes:
        size: (width, height) as the file says, None if it says nothing.
        filename: of the picture, as the file says; may be empty.
    """
    size: tuple[int, int] | None
    filename: str
    objects: list[VocObject]


def decode(content: bytes) -> str:
    """Decode the text of a split file.

    Raises:
        InputError: neither UTF-8 nor marked as UTF-16.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items()
                     if content.startswith(mark)), 'utf-8')
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError('is not UTF-8 (nor UTF-16 with a byte order mark): '
                         'save it as UTF-8') from error


def parse_annotation(content: bytes) -> VocAnnotation:
    """Read an annotation.

    Args:
        content: the XML file.
    Raises:
        InputError: it is no XML, or an object lacks a name, a box or a
            number; the message does not name the file.
    """
    root = _parse_xml(content)
    return VocAnnotation(
        _size(root.find('size')), (root.findtext('filename') or '').strip(),
        [_object(number, element) for number, element
         in enumerate(root.findall('object'), 1)])


def picture_names(lines: Iterable[str], has_annotation) -> list[str]:
    """Return the names of pictures in the lines of a split file.

    Blank lines are left out; a suffix, and the flag behind the name in VOC's
    lists of one class (``name -1``), are taken off where there is no
    annotation of that whole name.

    Args:
        lines: of the file.
        has_annotation (callable): tells whether a name has an annotation.
    """
    return [_picture_name(line.strip(), has_annotation)
            for line in lines if line.strip()]


def _picture_name(line, has_annotation):
    names = [line]
    flagged = FLAG.fullmatch(line)
    if flagged:
        names.append(flagged[1])
    names += [name[:-len(suffix)] for name in list(names)
              for suffix in SUFFIXES if name.lower().endswith(suffix)]
    return next((name for name in names if has_annotation(name)), line)


def _parse_xml(content):
    try:
        try:
            return ElementTree.fromstring(content)
        except (ElementTree.ParseError, ValueError, LookupError):
            text = _declared_text(content)
            if text is None:
                raise
            return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f'is not XML: {error}') from error
    except (ValueError, LookupError) as error:
        raise InputError(f'cannot be decoded: {error}') from error


def _declared_text(content):
    """The text without its declaration, of encodings that expat lacks."""
    found = DECLARATION.match(content[:200].decode('ascii', 'replace'))
    if not found:
        return None
    return DECLARATION.sub('', content.decode(found[1]), count=1)


def _size(element):
    if element is None:
        return None
    size = tuple(_size_number(element, tag) for tag in ('width', 'height'))
    return size if min(size) > 0 else None


def _size_number(element, tag):
    text = (element.findtext(tag) or '').strip()
    return _number(element, tag, _whole) if text else 0


def _object(number, element):
    name = (element.findtext('name') or '').strip()
    if not name:
        raise InputError(f'object {number} has no <name>')
    boxes = [_box(number, name, box) for box in element.findall('bndbox')]
    if not boxes:
        raise InputError(f'object {number} ({name}) has no <bndbox>')
    return VocObject(name, _difficult(element), boxes)


def _box(number, name, element):
    x1, y1, x2, y2 = box = tuple(
        _number(element, tag, _whole) for tag in CORNERS)
    if x2 < x1 or y2 < y1:
        raise InputError(f'object {number} ({name}) has xmin > xmax or '
                         f'ymin > ymax: {x1}, {y1}, {x2}, {y2}')
    return box


def _difficult(element):
    text = (element.findtext('difficult') or '').strip()
    if text.lower() in NO:
        return False
    if text.lower() in YES:
        return True
    return bool(_number(element, 'difficult', int))


def _whole(text):
    """Read '12' or '12.7' as XMLDataset does."""
    return int(float(text))


def _number(element, tag, read):
    text = element.findtext(tag)
    try:
        return read(text)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f'<{element.tag}> needs a number in <{tag}>, got '
                         f'{text!r}') from error
