"""What an installation carries: configs, tools, and where they lie."""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config

from mmadder.ops.extension import BINARY

ROOT = Path(__file__).parents[1]


def run_configs(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmadder', 'configs', *arguments],
        capture_output=True, text=True)


def test_printed_configs_can_be_a_base(tmp_path):
    result = run_configs('bccd/faster-rcnn_ann-awn-r18')
    assert result.returncode == 0, result.stderr
    # Packages of the stack print on import, too.
    path, = [line for line in result.stdout.split('\n')
             if line.endswith('.py')]
    child = tmp_path / 'mine.py'
    child.write_text(f'_base_ = {path!r}\nmax_epochs = 3\n')
    config = Config.fromfile(child)
    assert config.model.backbone.type == 'AdderResNet'
    assert config.max_epochs == 3


def test_unknown_config_is_said():
    result = run_configs('no-such-config')
    assert result.returncode == 1
    assert "no config in" in result.stderr


@pytest.mark.slow
def test_wheel_carries_configs_and_tools(tmp_path):
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps',
         '--no-build-isolation', '--wheel-dir', tmp_path, ROOT], check=True)
    wheel, = tmp_path.glob('*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [*ROOT.glob('configs/**/*.py'), *ROOT.glob('tools/**/*.py'),
                 *ROOT.glob('tools/*.sh'), *ROOT.glob('weights/*'),
                 ROOT / 'model-index.yml']:
        assert f'mmadder/.mim/{path.relative_to(ROOT)}' in names
    assert '-cp311-abi3-' in wheel.name
    assert [name for name in names if name.startswith('mmadder/_C')] == [
        f'mmadder/{BINARY.name}']
    assert not any('__pycache__' in name or name.startswith('tests')
                   for name in names)


# -------------------------------------------- one binary for all Pythons --

# Without torch's Python part, which these Pythons need not have.
IMPORT = """
import ctypes, sys
from importlib import machinery, util
library, binary = sys.argv[1:]
ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
loader = machinery.ExtensionFileLoader('mmadder._C', binary)
module = util.module_from_spec(
    util.spec_from_file_location('mmadder._C', binary, loader=loader))
loader.exec_module(module)
print(module.__name__, *sys.version_info[:2], machinery.EXTENSION_SUFFIXES)
"""


def other_pythons():
    """Pythons from 3.11 on that start, this one's version left out."""
    pyenv = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'))
    found = {}
    for minor in range(11, 16):
        name = f'python3.{minor}'
        for path in (shutil.which(name),
                     *sorted(pyenv.glob(f'versions/*/bin/{name}'))):
            # pyenv's command of a version that is not in use only complains.
            if path and minor != sys.version_info.minor and subprocess.run(
                    [path, '-c', ''], capture_output=True).returncode == 0:
                found.setdefault(name, path)
    return found


def test_one_binary_serves_several_pythons():
    pythons = other_pythons()
    if not pythons:
        pytest.skip('no second Python from 3.11 on was found')
    library = Path(torch.__file__).parent / 'lib' / 'libtorch.so'
    for name, path in {'this': sys.executable, **pythons}.items():
        result = subprocess.run(
            [path, '-S', '-c', IMPORT, library, BINARY], capture_output=True,
            text=True)
        assert result.returncode == 0, f'{name}: {result.stderr}'
        assert result.stdout.startswith('mmadder._C 3 '), name
        if name != 'this':
            assert f'3 {name.partition(".")[2]}' in result.stdout


def undefined_symbols(binary):
    listing = subprocess.run(
        ['nm', '-D', '--undefined-only', binary], check=True,
        capture_output=True, text=True).stdout
    return {line.split()[-1].partition('@')[0]
            for line in listing.splitlines()}


def needed_libraries(binary):
    listing = subprocess.run(
        ['readelf', '-d', binary], check=True, capture_output=True,
        text=True).stdout
    return re.findall(r'NEEDED.*\[(.+)\]', listing)


def test_binary_uses_the_stable_interface_of_python():
    for tool in ('nm', 'readelf'):
        if shutil.which(tool) is None:
            pytest.skip(f'{tool} was not found (apt-get install binutils)')
    symbols = undefined_symbols(BINARY)
    assert {name for name in symbols if re.match('_?Py', name)} == {
        'PyModule_Create2'}
    libraries = needed_libraries(BINARY)
    assert 'libc10.so' in libraries
    assert not [name for name in libraries if 'python' in name]


def test_binary_of_an_older_version_is_not_loaded(tmp_path):
    """Python itself would take the one that names its version."""
    package = tmp_path / 'mmadder'
    package.mkdir()
    for path in BINARY.parent.iterdir():
        if not path.name.startswith('_C.') or path == BINARY:
            (package / path.name).symlink_to(path)
    suffix = sysconfig.get_config_var('EXT_SUFFIX')
    (package / f'_C{suffix}').write_text('of yesterday')
    code = ('import mmadder; from mmadder.ops.extension import is_built; '
            'print(mmadder.__file__, is_built())')
    result = subprocess.run(
        [sys.executable, '-P', '-c', code], capture_output=True, text=True,
        env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert result.stdout.split()[-2:] == [
        str(package / '__init__.py'), 'True'], result.stderr


# ------------------------------------------------------------ model index --


def test_model_index_names_files_that_exist():
    imports = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    for name in imports:
        meta = yaml.safe_load((ROOT / name).read_text())
        for collection in meta['Collections']:
            assert (ROOT / collection['README']).is_file()
        assert {model['In Collection'] for model in meta['Models']} == {
            collection['Name'] for collection in meta['Collections']}
        configs = {model['Config'] for model in meta['Models']}
        assert all((ROOT / config).is_file() for config in configs)
        folder = (ROOT / name).parent
        assert configs == {str(path.relative_to(ROOT))
                           for path in folder.glob('*.py')}
