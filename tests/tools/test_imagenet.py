"""The ImageNet configs on a small folder, through the tools."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from official_adder_net import make_adder_net

from mmadder.checkpoints.state_dict import read_state_dict

ROOT = Path(__file__).parents[2]
NAMES = ['ann-awn-resnet18', 'cnn-resnet18', 'ann-resnet18',
         'ann-ws-resnet18', 'ann-resnet50', 'ann-awn-resnet50']
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def config(name):
    return ROOT / 'configs' / 'imagenet' / f'{name}_8xb32_in1k.py'


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a tool in this process."""
    monkeypatch.chdir(tmp_path)

    def run_tool(tool, *args):
        path = str(ROOT / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')

    return run_tool


def small(epochs=1):
    """Options: few epochs, small crops, no workers."""
    return ('--cfg-options', f'train_cfg.max_epochs={epochs}',
            *(f'{name}.{key}' for name in LOADERS
              for key in ('num_workers=0', 'persistent_workers=False')),
            'train_dataloader.dataset.pipeline.1.scale=32', *(
                f'{name}.dataset.pipeline.{key}' for name in LOADERS[1:]
                for key in ('1.scale=40', '2.crop_size=32')))


def scalars(work_dir, key):
    values = []
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        records = map(json.loads, path.read_text().splitlines())
        values += [record[key] for record in records if key in record]
    return values


@pytest.mark.parametrize('name', [
    NAMES[0], *(pytest.param(name, marks=pytest.mark.slow)
                for name in NAMES[1:])])
def test_trains_resumes_and_tests_on_a_folder(
        run, image_folder, tmp_path, capsys, name):
    data = ('--data-root', image_folder)
    run('train.py', config(name), *data, '--work-dir', 'work', *small())
    assert ('4 classes, so model.head.num_classes=4 (was 1000), accuracy of '
            'top (1,)') in capsys.readouterr().out
    run('train.py', config(name), *data, '--work-dir', 'work', '--resume',
        '--record', *small(2))
    checkpoint = tmp_path / 'work' / 'epoch_2.pth'
    state_dict = read_state_dict(str(checkpoint))
    assert len(state_dict['head.fc.weight']) == 4
    assert len(scalars('work', 'accuracy/top1')) == 2
    # Of the recorded epoch.
    assert len(scalars('work', 'test/cross_entropy')) == 1
    run('test.py', config(name), checkpoint, *data, '--work-dir', 'test',
        *small())
    result, = (tmp_path / 'test').glob('*/*.json')
    assert 'accuracy/top1' in json.loads(result.read_text())


def test_recording_every_zero_epochs(run, image_folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        run('train.py', config(NAMES[0]), '--data-root', image_folder,
            '--record', '0', *small())
    assert stopped.value.code == 2
    assert 'interval of StatisticsHook must be at least 1, got 0' in \
        capsys.readouterr().err


def test_given_number_of_classes(run, image_folder, tmp_path, capsys):
    """With lists of labels in place of folders."""
    (image_folder / 'meta').mkdir()
    for split in ('train', 'val'):
        paths = sorted((image_folder / split).glob('*/*'))
        (image_folder / 'meta' / f'{split}.txt').write_text(''.join(
            f'{path.relative_to(image_folder / split)} {i % 2}\n'
            for i, path in enumerate(paths)))
    data = ('--data-root', image_folder)
    run('train.py', config(NAMES[0]), *data, '--work-dir', 'work', *small(),
        'model.head.num_classes=2')
    path = str(tmp_path / 'work' / 'epoch_1.pth')
    assert len(read_state_dict(path)['head.fc.weight']) == 2
    classes = torch.load(path, weights_only=False)['meta']['dataset_meta']
    assert classes == dict(classes=('0', '1'))


@pytest.mark.slow
def test_import_of_the_official_resnet50(run, tmp_path, capsys):
    """Its norm on the logits by options; outputs agree to 1e-5, or fail."""
    torch.save(make_adder_net(50).state_dict(), 'official.pth')
    run('convert_checkpoint.py', config('ann-resnet50'), 'official.pth',
        'ann.pth', '--cfg-options', 'model.head.type=BNLogitsHead',
        'model.head.bias=True', 'model.head.num_classes=12')
    assert 'outputs deviate by' in capsys.readouterr().out
    run('convert_checkpoint.py', config('ann-awn-resnet50'), 'ann.pth',
        'awn.pth', '--cfg-options', 'model.head.type=BNLogitsHead',
        'model.head.bias=True', 'model.head.num_classes=12')
    assert 'head.bn.weight' in read_state_dict('awn.pth')
    assert 'backbone.layer1.0.conv3.awn.nu' in read_state_dict('awn.pth')
