"""Words for messages."""
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
