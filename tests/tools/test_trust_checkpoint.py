"""No tool runs code of a checkpoint, unless told to trust it."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs' / 'cifar10' / 'ann-awn-resnet20_1xb256_cifar10.py'
EVIL = 'evil.pth'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
TRUST = '--trust-checkpoint'
PRETRAINED = [f'model.backbone.init_cfg.{key}' for key in (
    'type=Pretrained', f'checkpoint={EVIL}', 'prefix=backbone.')]


class Program:
    """Pickled as a call that writes the file 'ran'."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()", )


@pytest.fixture
def run(monkeypatch, tmp_path, cifar):
    """Return a function that runs a tool with an evil checkpoint beside."""
    monkeypatch.chdir(tmp_path)
    model = build_model(Config.fromfile(CONFIG))
    noise = torch.randn(8, 3, 32, 32)  # constant logits would prove nothing
    reestimate_statistics(
        model, [noise], lambda images: model(images, mode='tensor'))
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1),
                    extra=Program()), EVIL)

    def run_tool(tool, *args):
        path = str(ROOT / 'tools' / tool)
        args = [tool, CONFIG, *args]
        if tool != 'convert_checkpoint.py':
            args += ['--data-root', cifar]
        args += ['--cfg-options', *(
            f'{name}.{key}' for name in LOADERS for key in (
                'num_workers=0', 'persistent_workers=False', 'batch_size=10'
            )), 'train_cfg.max_epochs=1']
        args += PRETRAINED if 'pretrained' in args else []
        monkeypatch.setattr(sys, 'argv', [
            str(a) for a in args if a != 'pretrained'])
        runpy.run_path(path, run_name='__main__')

    return run_tool


@pytest.mark.parametrize('command', [
    ('train.py', '--resume', EVIL), ('train.py', 'pretrained'),
    ('test.py', EVIL), ('quantize.py', EVIL, '--out', 'int8.pth'),
    ('convert_checkpoint.py', EVIL, 'out.pth'),
    ('analysis/interpolate.py', EVIL, EVIL),
    ('analysis/variance_study.py', EVIL),
    ('robustness.py', EVIL, '--images', 10, '--batch-size', 10)])
def test_refused(run, tmp_path, capsys, command):
    with pytest.raises(SystemExit) as stopped:
        run(*command)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert f'{EVIL} is more than data: to read it would call exec' in message
    assert TRUST in message
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('command', [
    ('train.py', 'pretrained'), ('test.py', EVIL),
    ('quantize.py', EVIL, '--out', 'int8.pth', '--batches', 1),
    ('convert_checkpoint.py', EVIL, 'new/out.pth'),
    ('robustness.py', EVIL, '--images', 10, '--batch-size', 10, '--attacks',
     'FGSM', '--modes', 'eval')])
def test_trusted(run, tmp_path, command):
    run(*command, TRUST)
    assert (tmp_path / 'ran').exists()
