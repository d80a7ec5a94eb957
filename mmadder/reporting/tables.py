"""How the commands of ``tools/analysis`` show their numbers."""
import math

import numpy as np


def text_table(header, rows):
    """Align rows for the terminal: first column left, others right.

    Args:
        header (sequence of str)
        rows (iterable of sequences): strings and numbers.
    Returns:
        str
    """
    rows = [list(map(str, header)),
            *([number(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(
        '  '.join(cell.ljust(width) if i == 0 else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(row, widths)))
        for row in rows)


def number(value, digits=4):
    """Write a number with so many digits; None and NaN as '-'."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return '-'
    if isinstance(value, (float, np.floating)):
        size = abs(value)
        if size >= 1000:
            return f'{value:,.0f}' if size < 1e7 else f'{value:.2e}'
        return f'{value:.{digits}g}'
    return str(value)
