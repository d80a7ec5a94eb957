"""The house in order: imports point downwards, a name occurs once."""
import ast
import collections
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import mmadder

HOUSE = Path(mmadder.__file__).parent
TESTS = Path(__file__).parent
# Each may import those before it.
LAYERS = (
    'version', 'errors', 'dependencies', 'text', 'files', 'timing',
    'config_nodes',
    'ops', 'layers', 'statistics', 'checkpoints', 'models', 'datasets',
    'evaluation', 'engine', 'inference', 'integer', 'cli', 'reporting', 'runs',
    'analysis', 'robustness', 'export', 'benchmark', 'apis')
ENTRANCES = ('__init__', '__main__')  # of the house: import what they like
# By design an operator and its layer have one name.
SHARED_NAMES = {'__init__', 'adder_conv2d'}

# What is not so yet. These only get shorter: an entry that holds is an error.
UPWARDS = set()
# Tested as commands, and by all others.
WITHOUT_TEST = {'__main__', 'errors', 'version'}


def modules():
    """{dotted name within mmadder: path}."""
    return {'.'.join(path.relative_to(HOUSE).with_suffix('').parts): path
            for path in sorted(HOUSE.rglob('*.py'))
            if '.mim' not in path.parts}


def imported(name, path):
    """Yield the modules of mmadder that a module imports, dotted."""
    package = ['mmadder', *name.split('.')[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level] \
                if node.level else []
            base = '.'.join([*base, *filter(None, [node.module])])
            found = [f'{base}.{alias.name}' for alias in node.names]
        else:
            continue
        for target in found:
            if target.startswith('mmadder.'):
                yield target.removeprefix('mmadder.')


def upwards(name, path):
    """Return the rooms above a module's own that it imports."""
    rooms = {target.split('.')[0] for target in imported(name, path)}
    own = LAYERS.index(name.split('.')[0])
    return rooms & set(LAYERS[own + 1:])


def mirrors(name):
    """Return the files that may test a module."""
    *rooms, module = name.split('.')
    folder = TESTS.joinpath(*rooms[:1])
    names = [f'test_{module}.py']
    if rooms:  # pytest needs no unique names, people do
        names.append(f'test_{module}_{rooms[0].removesuffix("s")}.py')
    return [folder / file for file in names]


def test_every_room_has_a_layer():
    rooms = {name.split('.')[0] for name in modules()} - set(ENTRANCES)
    assert rooms == set(LAYERS)


def test_no_import_points_upwards():
    found = {(name, room) for name, path in modules().items()
             if name not in ENTRANCES for room in upwards(name, path)}
    assert found == UPWARDS


def test_no_name_occurs_twice():
    counts = collections.Counter(
        name.rpartition('.')[2] for name in modules())
    twice = {name for name, count in counts.items() if count > 1}
    assert twice == SHARED_NAMES


def test_every_module_has_a_test():
    missing = {name for name in modules()
               if not name.endswith('__init__')
               and not any(path.is_file() for path in mirrors(name))}
    assert missing == WITHOUT_TEST


@pytest.mark.parametrize('line, rooms', [
    ('import mmadder.engine', {'engine'}),
    ('from mmadder import cli, ops', {'cli'}),
    ('from mmadder.robustness.data import x', {'robustness'}),
    ('from ..engine import x', {'engine'}),
    ('from .. import cli', {'cli'}),
    ('from .build import x\nfrom mmadder.files import y', set()),
    ('def f():\n    from mmadder.cli import x', {'cli'}),
    ('from mmadder import __version__', set())])
def test_the_search_for_imports_finds_them(tmp_path, line, rooms):
    path = tmp_path / 'module.py'
    path.write_text(line)
    assert upwards('models.module', path) == rooms


def test_random_numbers_of_a_test_do_not_depend_on_those_before_it():
    """A bound that 400 tests kept broke in the order of another machine."""
    assert torch.initial_seed() == 0
    assert random.getstate() == random.Random(0).getstate()
    assert np.random.get_state()[1][0] == 0
