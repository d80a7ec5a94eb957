"""Networks that are partly convolutions: run as they are, or refused."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmadder.layers import set_adder_fraction
from mmadder.models import build_model

TOOLS = Path(__file__).parents[2] / 'tools'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
NOTE = 'adder_fraction 0.3: not an adder network yet'
CONFIG, FILE = 'small.py', 'unfinished.pth'


@pytest.fixture
def run(small, call_tool, monkeypatch, capfd, warnings):
    """Return a function that runs a tool and gives all that it said."""
    monkeypatch.chdir(small)
    model = build_model(Config.fromfile(CONFIG))
    set_adder_fraction(model, .3)
    torch.save(dict(state_dict=model.state_dict()), FILE)

    def run_tool(tool, *args, data=True, code=None):
        options = [f'{name}.{key}' for name in LOADERS for key in (
            'num_workers=0', 'persistent_workers=False', 'batch_size=10')]
        args = [*args, *(['--data-root', 'cifar'] if data else []),
                '--cfg-options', *options]
        warnings.clear()
        call_tool(tool, *args, code=code)
        logs = [log.read_text() for log in Path().glob('work_dirs/*/*/*.log')]
        return '\n'.join([*capfd.readouterr(), *warnings, *logs])

    return run_tool


@pytest.mark.parametrize('tool, args', [
    ('test.py', (CONFIG, FILE)),
    ('robustness.py', (CONFIG, FILE, '--images', 10, '--batch-size', 10,
                       '--attacks', 'FGSM', '--modes', 'eval')),
    ('analysis/interpolate.py', (CONFIG, FILE, FILE, '--points', 1,
                                 '--batches', 0, '--json', 'a.json')),
    ('analysis/variance_study.py', (CONFIG, FILE, '--images', 2))])
def test_said(run, tool, args):
    assert NOTE in run(tool, *args)


def test_said_by_the_demo(run):
    picture = next(Path('cifar/test').rglob('*.png'))
    assert NOTE in run(
        'image_demo.py', picture, CONFIG, FILE, '--out', 'out', data=False)


def test_nothing_is_said_of_adders(run):
    assert 'adder network yet' not in run('test.py', CONFIG, 'small.pth')


@pytest.mark.parametrize('tool, args, data', [
    ('test.py', (CONFIG, FILE, '--fuse'), True),
    ('quantize.py', (CONFIG, FILE, '--out', 'out.pth'), True),
    ('convert_checkpoint.py', (CONFIG, FILE, 'out.pth', '--source', 'ann'),
     False)])
def test_refused(run, tool, args, data):
    text = run(tool, *args, data=data, code=2)
    assert 'are not adders yet (adder_fraction 0.3' in text
    assert 'finish its training with AnnealingHook' in text
    assert not Path('out.pth').exists()
