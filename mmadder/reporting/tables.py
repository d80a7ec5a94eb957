"""Tables of numbers, for terminals and as Markdown."""
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

# Of a line, in characters: a table is not cut to the terminal or, in a pipe,
# to rich's 80.
WIDE = 10_000


def print_table(header: Sequence[str],
                rows: Iterable[Sequence[Any]]) -> None:
    """Print rows to stdout: first column left, others right.

    Args:
        header: titles of the columns.
        rows: strings and numbers; an empty one leaves a line free.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, title in enumerate(header):
        table.add_column(title, justify='right' if i else 'left',
                         no_wrap=True)
    for row in rows:
        table.add_row(*map(number, row))
    # Names of runs and layers may look like markup.
    Console(width=WIDE, markup=False, emoji=False, highlight=False).print(
        table)


def markdown_table(header: Sequence[str],
                   rows: Iterable[Sequence[Any]]) -> str:
    """Write rows as Markdown, aligned for reading as text too.

    Example:
        >>> print(markdown_table(('run', 'mAP'), [('a', .5), ('long', None)]))
        | run  | mAP |
        |------|----:|
        | a    | 0.5 |
        | long |   - |
    """
    cells = [[number(cell).replace('|', r'\|') for cell in row]
             for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    head, *body = ['| ' + ' | '.join(
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths))) + ' |'
        for row in cells]
    rule = '|'.join('-' * (width + 1) + (':' if i else '-')
                    for i, width in enumerate(widths))
    return '\n'.join([head, f'|{rule}|', *body])


def number(value: Any, digits: int = 4) -> str:
    """Write a number with so many digits; None and NaN as '-'."""
    if not isinstance(value, (float, np.floating)):
        return '-' if value is None else str(value)
    if math.isnan(value):
        return '-'
    size = abs(value)
    if size >= 1000:
        return f'{value:,.0f}' if size < 1e7 else f'{value:.2e}'
    return f'{value:.{digits}g}'
