"""The VOC configs through the tools, unchanged but for place and length."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

ROOT = Path(__file__).parents[2]
VOC = ROOT / 'configs' / 'voc'
AWN = 'faster-rcnn_ann-awn-r18_ann-awn-fpn_4xb4-12e_voc0712.py'
OTHERS = sorted(path.relative_to(VOC).as_posix()
                for path in VOC.rglob('*.py') if path.name != AWN)
# Two epochs of pictures of 32x32, read in this process; one checkpoint.
SHORT = '''
_base_ = {base!r}
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1),
                     checkpoint=dict(max_keep_ckpts=1))
small = dict(type='Resize', scale=(48, 32), keep_ratio=True)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = _base_.train_dataloader
for part in train_dataloader.dataset.datasets:
    part.pipeline[2] = small
train_dataloader.update(loader)
val_dataloader = _base_.val_dataloader
val_dataloader.dataset.pipeline[1] = small
val_dataloader.update(loader)
test_dataloader = val_dataloader
'''


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a tool in this process."""
    monkeypatch.chdir(tmp_path)
    # MMEngine formats the config anew for each checkpoint: most of the time.
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode',
                        lambda text, **kwargs: (text, True))

    def run_tool(tool, *args):
        path = str(ROOT / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')

    yield run_tool
    # A full detector and its momentum take 300 MB.
    shutil.rmtree(tmp_path / 'work', ignore_errors=True)


def write_short(name, folder):
    """Write a short child of a config."""
    path = folder / 'short.py'
    path.write_text(SHORT.format(base=str(VOC / name)))
    return path


def write_pretrained(config, folder):
    """Write the checkpoint that a config starts from, as if trained."""
    backbone = dict(Config.fromfile(config).model.backbone)
    checkpoint = folder / backbone.pop('init_cfg').checkpoint
    checkpoint.parent.mkdir(parents=True)
    model = MODELS.build(dict(backbone, norm_eval=False))
    with torch.no_grad():  # frozen norms need statistics that fit
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = None
        model(torch.randn(2, 3, 64, 64))
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value
                                in model.state_dict().items()}), checkpoint)


def scalars(work, key):
    """Return all values of a scalar over the runs in a work dir."""
    records = [json.loads(line)
               for path in sorted(work.glob('*/vis_data/scalars.json'))
               for line in path.read_text().splitlines()]
    return [record[key] for record in records if key in record]


def check_training(run, name, devkit, tmp_path):
    """Train one epoch, resume for the second, and test."""
    config, work = write_short(name, tmp_path), tmp_path / 'work'
    write_pretrained(config, tmp_path)
    options = ('--data-root', devkit, '--work-dir', work)
    run('train.py', config, *options, '--cfg-options',
        'train_cfg.max_epochs=1')
    run('train.py', config, *options, '--resume')
    assert len(scalars(work, 'loss')) == 4  # 6 pictures, 4 a batch
    for key in ('pascal_voc/mAP', 'pascal_voc_area/mAP'):
        assert len(scalars(work, key)) == 2
    assert all(torch.isfinite(torch.tensor(scalars(work, 'loss'))))
    assert len(list(work.glob('best_pascal_voc_mAP_epoch_*.pth'))) == 1
    run('test.py', config, work / 'epoch_2.pth', '--data-root', devkit,
        '--work-dir', work / 'test')
    result, = (work / 'test').glob('*/*.json')
    figures = json.loads(result.read_text())
    for key in ('pascal_voc/mAP', 'pascal_voc_area/mAP'):
        assert figures[key] == pytest.approx(scalars(work, key)[-1], abs=1e-6)


def test_awn_row_trains_evaluates_and_resumes(run, devkit, tmp_path):
    check_training(run, AWN, devkit, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', OTHERS)
def test_all_others_do_too(run, devkit, tmp_path, name):
    check_training(run, name, devkit, tmp_path)


@pytest.mark.parametrize('damage, message', [
    (lambda devkit: shutil.rmtree(devkit / 'VOC2012'),
     'VOC2012/ is not a directory'),
    (lambda devkit: (devkit / 'VOC2012/JPEGImages/trainval_3.jpg').unlink(),
     '1 of 4 entries of {root}/VOC2012/ImageSets/Main/trainval.txt cannot be '
     'used:\n  picture {root}/VOC2012/JPEGImages/trainval_3.jpg does not '
     'exist'),
    (lambda devkit: (devkit / 'VOC2007/ImageSets/Main/test.txt').unlink(),
     "split file '{root}/VOC2007/ImageSets/Main/test.txt' does not exist")])
def test_incomplete_devkit(run, devkit, tmp_path, capsys, damage, message):
    damage(devkit)
    config = write_short(AWN, tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run('train.py', config, '--data-root', devkit, '--work-dir', 'work')
    assert stopped.value.code == 2
    assert message.format(root=devkit) in capsys.readouterr().err
    assert not list((tmp_path / 'work').glob('*.pth'))
