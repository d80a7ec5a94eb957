"""What a user can put right ends in one sentence and exit code 2."""

import json
from pathlib import Path

import cv2
import pytest
import torch

TOOLS = Path(__file__).parents[2] / 'tools'
CONFIG = '''
_base_ = 'mmdet::_base_/models/rpn_r50_fpn.py'
default_scope = 'mmdet'
data_root = 'data/none/'
train_dataloader = dict(
    batch_size=2, num_workers={workers},
    collate_fn=dict(type='pseudo_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CheckedXMLDataset', data_root=data_root,
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('0', '1', '2', '3', '4', '5')),
        pipeline=[dict(type='LoadImageFromFile'),
                  dict(type='LoadAnnotations', with_bbox=True),
                  dict(type='PackDetInputs')]))
test_dataloader = train_dataloader
test_cfg = dict()
test_evaluator = dict(type='VOCMetric')
model = dict(backbone=dict(depth=18, init_cfg=None),
             neck=dict(in_channels=[64, 128, 256, 512]))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
'''


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(workers=0, text=''):
        path = tmp_path / 'wrong.py'
        path.write_text(CONFIG.format(workers=workers) + text)
        return str(path)

    return write


@pytest.fixture
def fails(call_tool, capsys):
    """Return a function that runs a tool and gives its last words."""

    def run_tool(tool, *args):
        call_tool(tool, *args, code=2)
        message = capsys.readouterr().err
        assert 'Traceback' not in message
        return message

    return run_tool


def test_missing_files(fails, config, voc):
    assert fails('train.py', 'none.py').startswith(
        "train.py: config 'none.py' does not exist")
    assert "checkpoint 'none.pth' does not exist" in fails(
        'test.py', config(), 'none.pth')
    assert "data root 'data/none/' of train_dataloader" in fails(
        'train.py', config())
    assert "data root 'nowhere' of --data-root" in fails(
        'train.py', config(), '--data-root', 'nowhere')
    assert "checkpoint 'none.pth' does not exist" in fails(
        'train.py', config(), '--data-root', voc, '--resume', 'none.pth')
    assert "load_from 'none.pth' does not exist" in fails(
        'train.py', config(text="load_from = 'none.pth'"), '--data-root', voc)
    (voc / 'ImageSets' / 'Main' / 'train.txt').unlink()
    assert 'train.txt' in fails('train.py', config(), '--data-root', voc)


def test_wrong_options(fails, config, voc, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert 'use --data-root' in fails(
        'train.py', config(), '--cfg-options', f'data_root={voc}')
    assert 'needs auto_scale_lr' in fails(
        'train.py', config(), '--data-root', voc, '--auto-scale-lr')
    assert '--out pred.json: expected' in fails(
        'test.py', config(), config(), '--out', 'pred.json')
    assert 'has no train_cfg, optim_wrapper: give a whole config' in fails(
        'train.py', config(text='train_cfg = optim_wrapper = None'),
        '--data-root', voc)
    assert 'tta_model' in fails(
        'test.py', config(), config(), '--data-root', voc, '--tta')
    assert 'visualization hook' in fails(
        'test.py', config(), config(), '--data-root', voc, '--show-dir', 'x')


def test_no_picture_with_a_box(fails, config, voc, tmp_path):
    """MMEngine joins a list of nothing."""
    (tmp_path / 'empty.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='train_0.jpg', width=64, height=64)],
        annotations=[], categories=[dict(id=1, name='0')])))
    text = """
train_dataloader['dataset'] = dict(
    type='CocoDataset', data_root=data_root, ann_file={file!r},
    metainfo=dict(classes=('0', )), data_prefix=dict(img='JPEGImages/'),
    filter_cfg=dict(filter_empty_gt=True), pipeline=[])
""".format(file=str(tmp_path / 'empty.json'))
    assert 'empty.json is left' in fails(
        'train.py', config(text=text), '--data-root', voc, '--no-validate')


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU runs AMP')
def test_amp_without_gpu(fails, config, voc):
    assert '--amp needs a GPU' in fails(
        'train.py', config(), '--data-root', voc, '--amp')


@pytest.mark.parametrize('workers', [0, 1])
def test_damaged_picture(fails, config, voc, workers):
    """Also from a worker process, which sends its traceback along."""
    path = voc / 'JPEGImages' / 'train_0.jpg'
    content = cv2.imencode('.png', cv2.imread(str(path)))[1].tobytes()
    path.unlink()
    path = path.with_suffix('.png')
    # Whole at its ends, so that reading headers does not find it.
    path.write_bytes(content[:60] + bytes(len(content) - 80) + content[-20:])
    message = fails('train.py', config(workers), '--data-root', voc)
    assert message.splitlines()[-1].startswith('train.py: picture ')
    assert 'train_0.png cannot be decoded' in message


def test_missing_picture_is_found_before_training(fails, config, voc):
    (voc / 'JPEGImages' / 'train_0.jpg').write_bytes(b'')
    message = fails('train.py', config(), '--data-root', voc)
    assert message.splitlines()[0].startswith('train.py: 1 of 6 entries of ')
    assert 'train_0.jpg is empty' in message
