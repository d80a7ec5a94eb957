"""What an installation carries: configs, tools, and where they lie."""
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[1]


def run_configs(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'mmadder', 'configs', *arguments],
        capture_output=True, text=True)


def test_printed_configs_can_be_a_base(tmp_path):
    result = run_configs('bccd/faster-rcnn_ann-awn')
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
                 *ROOT.glob('tools/*.sh'), ROOT / 'model-index.yml']:
        assert f'mmadder/.mim/{path.relative_to(ROOT)}' in names
    assert any(name.startswith('mmadder/_C.') for name in names)
    assert not any('__pycache__' in name or name.startswith('tests')
                   for name in names)


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
