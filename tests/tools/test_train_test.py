"""End to end: train, interrupt, resume, evaluate, with tiny data."""

import json
import math
import os
import pickle
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmadder.checkpoints.state_dict import read_state_dict

REPO = Path(__file__).parents[2]
DETECTION = 'digits/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py'
CLASSIFICATION = 'digits/ann-awn-resnet18_1xb32-5e_digits.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@HOOKS.register_module()
class InterruptHook(Hook):
    """Press Ctrl-C in the second epoch of a run's first attempt."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1 and not runner._resume:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def tiny(tmp_path):
    """Return a function that writes a two-epoch child of a config."""

    def write(base, text='', workers=0):
        loader = f'dict(num_workers={workers}, persistent_workers=False)'
        path = tmp_path / f'tiny_{len(list(tmp_path.glob("tiny_*")))}.py'
        path.write_text('\n'.join(
            [f'_base_ = {str(base)!r}',
             'train_cfg = dict(max_epochs=2, val_interval=1)',
             'default_hooks = dict(logger=dict(interval=1))',
             *(f'{name} = {loader}' for name in LOADERS), text]))
        return str(path)

    return write


@pytest.fixture
def detection(tiny):
    return tiny(REPO / 'configs' / DETECTION,
                'model = dict(backbone=dict(init_cfg=None))')


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a command line in this process."""
    monkeypatch.chdir(tmp_path)

    def run_tool(tool, *args):
        path = str(tool if isinstance(tool, Path) else REPO / 'tools' / tool)
        monkeypatch.setattr(sys, 'argv', [path, *map(str, args)])
        runpy.run_path(path, run_name='__main__')

    return run_tool


def scalars(work_dir, key):
    """Return all values of a scalar, over all runs in the work dir."""
    values = []
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        records = map(json.loads, path.read_text().splitlines())
        values += [record[key] for record in records if key in record]
    return values


def test_detector_is_interrupted_resumed_and_tested(
        run, tiny, detection, digits, tmp_path, capsys):
    work = tmp_path / 'work'
    interrupted = tiny(detection, 'custom_hooks = [dict(type="LossScaleHook"),'
                       'dict(type="InterruptHook")]')
    options = ('--data-root', digits, '--work-dir', work, '--seed', 1)
    with pytest.raises(SystemExit) as stopped:
        run('train.py', interrupted, *options)
    assert stopped.value.code == 130
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith('Interrupted.') and '--resume' in message
    assert (work / 'last_checkpoint').read_text().endswith('epoch_1.pth')

    run('train.py', interrupted, *options, '--resume')
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=False)
    assert checkpoint['meta']['epoch'] == 2
    assert checkpoint['meta']['iter'] == 2
    assert len(scalars(work, 'loss')) == 2
    assert len(scalars(work, 'pascal_voc/mAP')) == 2
    page, = work.glob('*/report/index.html')  # of the second attempt
    assert 'on 3 validation pictures' in page.read_text()
    types = re.findall(r"type='(\w+Hook)'", checkpoint['meta']['cfg'])
    assert types.count('LossScaleHook') == 1
    assert types.count('CheckpointCheckHook') == 1

    out = tmp_path / 'predictions.pkl'
    run('test.py', detection, work / 'epoch_2.pth', '--data-root', digits,
        '--work-dir', tmp_path / 'test', '--out', out, '--show-dir', 'seen')
    predictions = pickle.loads(out.read_bytes())
    assert [p['img_id'] for p in predictions] == ['test_0', 'test_1', 'test_2']
    assert 'gt_instances' not in predictions[0]
    assert all(p['img_path'].startswith(str(digits)) for p in predictions)
    assert len(list((tmp_path / 'test').glob('*/seen/*.jpg'))) == 3

    run('test.py', detection, work / 'epoch_2.pth', '--data-root', digits,
        '--work-dir', tmp_path / 'fused', '--fuse', '--out', out)
    fused = pickle.loads(out.read_bytes())
    for a, b in zip(predictions, fused):
        torch.testing.assert_close(
            a['pred_instances']['scores'][:5],
            b['pred_instances']['scores'][:5], rtol=1e-3, atol=1e-4)


def test_quantized_checkpoint_is_written_and_tested(
        run, tiny, digits, tmp_path, capsys):
    config = tiny(REPO / 'configs' / CLASSIFICATION)
    work, out = tmp_path / 'work', tmp_path / 'int8.pth'
    options = ('--data-root', digits)
    run('train.py', config, *options, '--work-dir', work)
    run('quantize.py', config, work / 'epoch_2.pth', *options, '--work-dir',
        work, '--out', out, '--batches', 1)
    assert 'Evaluate it with: python tools/test.py' in capsys.readouterr().out
    run('test.py', config, out, *options, '--work-dir', tmp_path / 'test')
    result, = (tmp_path / 'test').glob('*/*.json')
    assert 'accuracy/top1' in json.loads(result.read_text())
    assert out.stat().st_size < (work / 'epoch_2.pth').stat().st_size / 2
    with pytest.raises(SystemExit) as stopped:
        run('quantize.py', config, out, *options, '--out', out)
    assert stopped.value.code == 2
    assert 'is quantized already' in capsys.readouterr().err


@pytest.mark.parametrize('kind, finite', [
    ('CheckedXMLDataset', True), ('XMLDataset', False)])
def test_boxes_without_area_leave_the_loss_finite(
        run, detection, voc, annotation, tmp_path, kind, finite):
    """MMDetection's own dataset is the control."""
    for i, box in enumerate([(30, 20, 30, 40), (20, 30, 40, 30)]):
        path = voc / 'Annotations' / f'train_{i}.xml'
        path.write_text(annotation(i, box))
    run('train.py', detection, '--data-root', tmp_path, '--work-dir',
        tmp_path, '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1',
        f'train_dataloader.dataset.type={kind}',
        'train_dataloader.dataset.filter_cfg.bbox_min_size=0')
    loss, = scalars(tmp_path, 'loss')
    assert math.isfinite(loss) == finite


def test_seed_decides_the_loss(run, detection, digits, tmp_path):
    losses = []
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        run('train.py', detection, '--data-root', digits, '--work-dir',
            tmp_path / name, '--seed', seed, '--deterministic',
            '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
        losses += scalars(tmp_path / name, 'loss')
    torch.use_deterministic_algorithms(False)
    assert len(losses) == 3
    assert losses[0] == losses[1] != losses[2]


def test_precise_norms_change_nothing_but_statistics(
        run, tiny, digits, tmp_path):
    """Of a detector, whose losses draw random numbers; given twice."""
    config = tiny(
        REPO / 'configs' / DETECTION, 'model = dict(backbone=dict('
        'init_cfg=None))\ncustom_hooks = [dict(type="PreciseBatchNormHook", '
        'num_samples=1)]')
    states = []
    for name, options in (('with', ['--precise-bn', 6]), (
            'without', ['--cfg-options', 'custom_hooks=[]'])):
        run('train.py', config, '--data-root', digits, '--work-dir',
            tmp_path / name, '--no-validate', *options)
        states.append(read_state_dict(str(tmp_path / name / 'epoch_2.pth')))
    assert scalars(tmp_path / 'with', 'loss') == scalars(
        tmp_path / 'without', 'loss')
    measured, tracked = states
    assert measured.keys() == tracked.keys()
    assert {key.rpartition('.')[2] for key in tracked if not torch.equal(
        measured[key], tracked[key])} == {'running_mean', 'running_var'}
    text = (tmp_path / 'with' / Path(config).name).read_text()
    assert "num_samples=6, type='PreciseBatchNormHook'" in text
    assert text.count('PreciseBatchNormHook') == 1


def test_classifier(run, tiny, digits, tmp_path):
    config = tiny(REPO / 'configs' / CLASSIFICATION)
    run('train.py', config, '--data-root', digits, '--cfg-options',
        'train_cfg.max_epochs=1')
    work = tmp_path / 'work_dirs' / Path(config).stem
    assert len(scalars(work, 'accuracy/top1')) == 1
    out = tmp_path / 'predictions.pkl'
    run('test.py', config, work / 'epoch_1.pth', '--data-root', digits,
        '--out', out)
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 20
    assert predictions[0]['pred_score'].shape == (10, )


@pytest.mark.parametrize('package, config, text', [
    ('mmdet', DETECTION, 'model = dict(backbone=dict(init_cfg=None))'),
    ('mmpretrain', CLASSIFICATION, '')])
def test_our_configs_run_under_upstream_tools(
        run, tiny, digits, tmp_path, site_packages, package, config, text):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'digits').symlink_to(digits)  # the configs' default
    run(site_packages / package / '.mim' / 'tools' / 'train.py',
        tiny(REPO / 'configs' / config, text), '--work-dir', tmp_path,
        '--cfg-options', 'train_cfg.max_epochs=1')
    assert (tmp_path / 'epoch_1.pth').exists()
    assert len(scalars(tmp_path, 'loss')) == 1


UPSTREAM_DETECTION = '''
classes = tuple('012345')
model = dict(
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(
        in_channels=32, fc_out_channels=32, num_classes=6)))
pipeline = [dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]
train_dataloader.update(batch_size=6, dataset=dict(
    times=2, dataset=dict(datasets=[dict(
        type='VOCDataset', data_root='data/VOCdevkit/', pipeline=pipeline,
        ann_file='VOC2007/ImageSets/Main/train.txt',
        metainfo=dict(classes=classes),
        data_prefix=dict(sub_data_root='VOC2007'))])))
val_dataloader.update(dataset=dict(
    metainfo=dict(classes=classes), pipeline=pipeline))
'''


def test_upstream_config_runs_under_our_tools(
        run, tiny, digits, tmp_path, site_packages):
    """Nested datasets, and no custom_imports: nothing of ours in it."""
    base = site_packages / 'mmdet/.mim/configs/pascal_voc' / \
        'faster-rcnn_r50_fpn_1x_voc0712.py'
    run('train.py', tiny(base, UPSTREAM_DETECTION), '--data-root', digits,
        '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1')
    assert len(scalars(tmp_path, 'loss')) == 2
    assert len(scalars(tmp_path, 'pascal_voc/mAP')) == 1


def start(config, *options, command=None, **kwargs):
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(REPO),
                       CUDA_VISIBLE_DEVICES='-1', PORT='29537')
    command = command or [sys.executable, REPO / 'tools' / 'train.py', config]
    return subprocess.Popen(
        [str(word) for word in (*command, *options)], env=environment,
        stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.slow
def test_killed_processes_resume(detection, digits, tmp_path):
    """From another directory, with worker processes."""
    work = tmp_path / 'work'
    options = ('--work-dir', work, '--data-root', digits, '--resume',
               '--cfg-options', 'train_cfg.max_epochs=1000',
               'train_dataloader.num_workers=1')
    codes = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    for epoch, (stop, code) in enumerate(codes.items(), 1):
        process = start(detection, *options, cwd=tmp_path)
        try:
            wait_for_epoch(work, epoch, process)
            process.send_signal(stop)
            error = process.communicate(timeout=30)[1]
        finally:
            process.kill()
        assert process.returncode == code
        assert 'Traceback' not in error
    process = start(detection, '--work-dir', work, '--data-root', digits,
                    '--resume', '--cfg-options', 'train_cfg.max_epochs=3',
                    cwd=tmp_path)
    assert process.wait(60) == 0, process.stderr.read()


def wait_for_epoch(work, epoch, process):
    deadline = time.monotonic() + 60
    while not (work / f'epoch_{epoch}.pth').exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(.1)


@pytest.mark.slow
def test_two_processes_without_gpu(detection, digits, tmp_path):
    options = ('--data-root', digits, '--work-dir', tmp_path / 'work',
               '--cfg-options', 'train_cfg.max_epochs=1',
               'train_dataloader.batch_size=1')
    process = start(None, *options, cwd=tmp_path, command=[
        REPO / 'tools' / 'dist_train.sh', detection, 2])
    assert process.wait(120) == 0, process.stderr.read()
    assert len(scalars(tmp_path / 'work', 'loss')) == 3  # 6 pictures
    process = start(None, *options, cwd=tmp_path, command=[
        REPO / 'tools' / 'dist_test.sh', detection,
        tmp_path / 'work' / 'epoch_1.pth', 2])
    assert process.wait(120) == 0, process.stderr.read()
    # Each process has two of three pictures, one of them twice.
    reports = sorted((tmp_path / 'work').glob('*/report/summary.json'))
    assert [json.loads(path.read_text())['split'] for path in reports] == [
        'validation', 'test']
    assert all(json.loads(path.read_text())['pictures'] == 3
               for path in reports)
