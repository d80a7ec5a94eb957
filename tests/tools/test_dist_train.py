"""tools/dist_train.sh on the CPU with averaged gradients."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).parents[2]
CONFIG = REPO / 'configs/digits/ann-awn-resnet18_1xb32-5e_digits.py'
HOOK = '''
import atexit
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmadder.layers import get_averaging_group


@HOOKS.register_module()
class SaveRankHook(Hook):

    def after_train_iter(self, runner, *args, **kwargs):
        group = get_averaging_group()
        torch.save(dict(averages=group and group.size(),
                        model=dict(runner.model.module.named_parameters())),
                   f'{runner.work_dir}/rank{runner.rank}.pth')

    def after_run(self, runner):
        atexit.register(note_threads, f'{runner.work_dir}/rank{runner.rank}')


def note_threads(path):
    names = [name.read_text() for name in
             Path('/proc/self/task').glob('*/comm')]
    Path(path).write_text(''.join(names))
'''
CHILD = f'''
_base_ = {str(CONFIG)!r}
custom_imports = dict(imports=['mmadder', 'save_rank'])
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader, val_dataloader, test_dataloader = loader, loader, loader
custom_hooks = [dict(type='LossScaleHook'), dict(type='SaveRankHook')]
'''


@pytest.mark.slow
def test_ranks_stay_equal(digits, tmp_path):
    (tmp_path / 'save_rank.py').write_text(HOOK)
    (tmp_path / 'config.py').write_text(CHILD)
    environment = dict(
        os.environ, PYTHON=sys.executable, PYTHONPATH=str(tmp_path),
        CUDA_VISIBLE_DEVICES='-1', PORT='29541', OMP_NUM_THREADS='1')
    result = subprocess.run(
        ['bash', REPO / 'tools' / 'dist_train.sh', tmp_path / 'config.py', '2',
         '--data-root', digits, '--work-dir', tmp_path, '--no-validate',
         '--cfg-options', 'train_cfg.max_epochs=1',
         'train_dataloader.batch_size=5',
         'custom_hooks.0.average_gradients=True'],
        env=environment, capture_output=True, text=True, timeout=150)
    assert result.returncode == 0, result.stderr
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2)]
    assert ranks[0]['averages'] == 2
    for name, parameter in ranks[0]['model'].items():
        assert torch.equal(parameter, ranks[1]['model'][name]), name
    # Threads of Gloo abort a process that ends, now and then.
    for rank in range(2):
        names = (tmp_path / f'rank{rank}').read_text()
        assert 'python' in names and 'gloo' not in names
