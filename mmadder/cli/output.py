"""Lines for the user."""

import os
from typing import TextIO


def print_once(text: str | None, file: TextIO | None = None) -> None:
    """Print a line, if there is one, in the first of several processes."""
    if text and int(os.environ.get('RANK', 0)) == 0:
        print(text, file=file)
