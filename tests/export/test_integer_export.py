"""From a checkpoint to a file of integers, and back to an evaluator."""
import copy
import json
import re
import runpy
import sys

import pytest
import torch
from settling import settle
from tiny_detector import ROOT, make_detector

from mmadder.cli import load_config
from mmadder.errors import InputError
from mmadder.export import export_integer
from mmadder.integer import IntegerNetwork
from mmadder.models import build_model

CENTERED = '''
conv_cfg = dict(center=True)
model['backbone']['conv_cfg'] = conv_cfg
model['neck']['conv_cfg'] = conv_cfg
'''
FEW = ('val_dataloader.num_workers=0 val_dataloader.persistent_workers=False '
       'test_dataloader.num_workers=0 '
       'test_dataloader.persistent_workers=False').split()


def test_classifier_through_the_tools(crops, digits, call_tool, tmp_path,
                                      monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, config, checkpoint = crops
    common = '--data-root', digits, '--cfg-options', *FEW
    call_tool('export_integer.py', config, checkpoint, '--out', 'small.npz',
              '--calibrate', 2, *common)
    printed = capsys.readouterr().out
    deviation, spread = map(float, re.search(
        r'logits +(\S+) +(\S+)', printed).groups())
    assert 0 < deviation < .4 * spread
    assert 'small.npz: written, 0.2 MiB' in printed
    network = IntegerNetwork.load('small.npz')
    assert network.model['kind'] == 'classifier'
    assert network.model['classes'] == list('0123456789')
    assert network.model['channel_order'] == 'RGB'
    assert network.model['bits'] == 8
    call_tool('test.py', config, 'small.npz', '--work-dir', 'integer',
              *common)
    metrics = json.loads(next((tmp_path / 'integer').glob(
        '*/*.json')).read_text())
    assert 0 <= metrics['accuracy/top1'] <= 100


def test_two_stage_detector(digits, tmp_path, monkeypatch):
    """Neck and RPN in integers, the RoI head in float from the file."""
    folder, *_ = make_detector(tmp_path, digits, CENTERED)
    cfg = load_config(str(folder / 'tiny.py'),
                      ('val_dataloader', 'test_dataloader'),
                      data_root=str(digits))
    out = tmp_path / 'tiny.npz'
    deviations = export_integer(cfg, str(folder / 'tiny.pth'), out, batches=2,
                                progress=False)
    assert [found.output for found in deviations] == [
        f'{part}.{level}' for part in ('neck', 'cls_scores', 'bbox_preds')
        for level in range(5)]
    # A network that is not trained makes every error larger from layer to
    # layer; what has nothing to do with each other is 1.4 apart.
    assert max(found.error / found.spread for found in deviations) < 1
    test = str(ROOT / 'tools/test.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [
        test, str(folder / 'tiny.py'), str(out), '--data-root', str(digits),
        '--work-dir', 'integer', '--cfg-options', *FEW])
    runpy.run_path(test, run_name='__main__')
    metrics = json.loads(next((tmp_path / 'integer').glob(
        '*/*.json')).read_text())
    assert 0 <= metrics['pascal_voc/mAP'] <= 1


def test_a_twin_of_convolutions(crops, tmp_path):
    """Shortcuts are sums; fewer bits are for adders."""
    cfg = copy.deepcopy(crops[0])
    cfg.val_dataloader = cfg.test_dataloader
    cfg.model.backbone.conv_cfg = None
    model = build_model(cfg)
    settle(model, torch.randn(32, 3, 64, 64), run=model.extract_feat)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'cnn.pth')
    found, = export_integer(cfg, str(tmp_path / 'cnn.pth'),
                            tmp_path / 'cnn.npz', batches=2, progress=False)
    assert found.error < .1 * found.spread
    kinds = [step['kind'] for step in
             IntegerNetwork.load(tmp_path / 'cnn.npz').steps]
    assert kinds.count('sum') == 8 and 'adder' not in kinds
    for option in dict(bits=4), dict(shift_only=True):
        with pytest.raises(InputError, match='are for adders'):
            export_integer(cfg, str(tmp_path / 'cnn.pth'),
                           tmp_path / 'few.npz', progress=False, **option)
    assert not (tmp_path / 'few.npz').exists()


def test_pictures_of_another_size_than_the_file_takes(crops, tmp_path):
    """What is measured is the network, not the size it is for."""
    cfg, _, checkpoint = crops
    cfg = copy.deepcopy(cfg)
    cfg.val_dataloader = cfg.test_dataloader
    found, = export_integer(cfg, checkpoint, tmp_path / 'a.npz', batches=1,
                            size=(96, 64), progress=False)
    assert 0 < found.error < found.spread
    assert IntegerNetwork.load(tmp_path / 'a.npz').size == [96, 64]


def test_wrong_input(crops, tmp_path):
    cfg, _, checkpoint = crops
    with pytest.raises(InputError, match='ends with .npz'):
        export_integer(cfg, checkpoint, tmp_path / 'a.onnx')
    with pytest.raises(InputError, match="checkpoint 'none.pth' does not"):
        export_integer(cfg, 'none.pth', tmp_path / 'a.npz')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('options, message', [
    (['--bits', 9], '--bits must be from 2 to 8, got 9'),
    (['--calibrate', 0], '--calibrate must be at least 1, got 0'),
    (['--input-size', 0, 5], '--input-size must be at least 1 1')])
def test_wrong_options(call_tool, capsys, options, message):
    call_tool('export_integer.py', 'c.py', 'c.pth', '--out', 'a.npz',
              *options, code=2)
    assert message in capsys.readouterr().err
