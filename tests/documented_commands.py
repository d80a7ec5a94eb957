"""The command lines of README, docs/ and the configs' READMEs."""
import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
                *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/*/README.md')])
PROGRAMS = ('python ', 'bash ', 'make ', 'pip ', 'tools/', 'mim ', 'GPUS=',
            'NNODES=', 'MMADDER_CUDA=')
FENCE = re.compile(r'^ *```')
BASENAME = re.compile(r'\$\(basename (\S+) \.py\)')
INLINE = re.compile(r'`(python [^`]+)`')


class Command(NamedTuple):
    page: str  # from the root
    text: str  # one line

    @property
    def words(self):
        """Its words, without variables in front and the shell's brackets."""
        text = re.sub(r'\[[^\]]*\]', '', self.text)
        words = [word for word in shlex.split(text, comments=True)
                 if word != '...']
        while words and re.fullmatch(r'[A-Z_]+=\S*', words[0]):
            words.pop(0)
        return words

    def __str__(self):
        return f'{self.page}: {self.text}'


def read_commands():
    """All commands, a page after the other."""
    return [Command(str(page.relative_to(ROOT)), text)
            for page in PAGES for text in page_commands(page.read_text())]


def page_commands(text):
    """Commands in indented blocks and in `python ...` of one page."""
    variables, fenced, lines = {}, False, []
    for line in text.replace('\\\n', ' ').splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines += [' '.join(found.split())
                      for found in INLINE.findall(line)]
            lines += [line.strip()] if line.startswith('    ') else []
    for line in lines:
        assigned = re.fullmatch(r'([A-Z])=("?)(\S.*)\2|(CONFIG)=(\S+)', line)
        if assigned:
            variables[assigned[1] or assigned[4]] = assigned[3] or assigned[5]
        for name, value in variables.items():
            line = line.replace(f'${name}', value)
        line = BASENAME.sub(lambda found: Path(found[1]).stem, line)
        if line.startswith(PROGRAMS):
            yield ' '.join(line.split())
