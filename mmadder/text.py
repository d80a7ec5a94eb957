"""Words for messages."""
import difflib
from collections.abc import Iterable


def shorten(items: Iterable, most: int = 10, separator: str = ', ') -> str:
    """Join the first items and say how many are left out.

    Example:
        >>> shorten('abcd', 2)
        'a, b and 2 more'
    """
    items = list(map(str, items))
    shown, more = separator.join(items[:most]), len(items) - most
    if more <= 0:
        return shown
    return f'{shown}{" " if separator == ", " else separator}and {more} more'


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, or nothing.

    Example:
        >>> nearest('SGDD', ['SGD', 'Adam'])
        ', did you mean SGD?'
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f', did you mean {" or ".join(close)}?' if close else ''
