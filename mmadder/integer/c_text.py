"""Words and numbers in C."""
import re
import textwrap
from collections.abc import Iterable

# Each byte in a C string: three digits end an escape, "??" is a trigraph.
_CHARACTERS = [
    chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?'
    else f'\\{byte:03o}' for byte in range(256)]
# Members of a struct: C's words, and those that are macros of the headers.
_RESERVED = set('''auto break case char const continue default do double else
enum extern float for goto if inline int long register restrict return short
signed sizeof static struct switch typedef union unsigned void volatile while
errno stdin stdout stderr unix linux'''.split())


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """{name: an identifier of C of its own}."""
    found = {}
    for name in names:
        stem = re.sub(r'[^A-Za-z0-9_]', '_', name)
        # Without small letters it may be a macro.
        if not re.match('[A-Za-z]', stem) or stem in _RESERVED \
                or not re.search('[a-z]', stem):
            stem = f'output_{stem}'
        label, count = stem, 1
        while label in found.values():
            count += 1
            label = f'{stem}_{count}'
        found[name] = label
    return found


def comment(text: str) -> str:
    """Without what would end a comment, or is not ASCII."""
    return re.sub(r'[^A-Za-z0-9_. ()-]', '_', text)


def int32(value: int) -> str:
    """A number as an expression."""
    # -2147483648 is an expression of a number that no int holds.
    return str(value) if value > -2**31 else '-2147483647 - 1'


def strings(content: bytes) -> str:
    """Bytes as strings of a line each, which C joins."""
    lines = [''.join(map(_CHARACTERS.__getitem__, content[i:i + 32]))
             for i in range(0, len(content), 32)]
    return '\n'.join(f'"{line}"' for line in lines or [''])


def wrapped(items: Iterable[str], indent: int = 4) -> str:
    """Items with commas, in indented lines."""
    text = ' '.join(f'{item},'.replace(' ', '\0') for item in items)
    lines = textwrap.wrap(
        text, 79 - indent, break_long_words=False, break_on_hyphens=False)
    return ''.join(f'{" " * indent}{line}\n' for line in lines).replace(
        '\0', ' ')
