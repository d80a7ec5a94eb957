"""What was converted from a CNN is trained into an adder network."""
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmadder.checkpoints import convert_checkpoint
from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics

ROOT = Path(__file__).parents[2]
SIZES = 'stem_channels=8, base_channels=8'
CLASSIFIER = f'''
_base_ = {str(ROOT / 'configs/digits/VARIANT-resnet18_1xb32-5e_digits.py')!r}
model = dict(backbone=dict({SIZES}), head=dict(in_channels=64))
'''
DETECTOR = f'''
_base_ = {str(ROOT / 'configs/digits/faster-rcnn_VARIANT-r18_VARIANT-fpn_'
              '1xb8-8e_digits.py')!r}
model = dict(
    backbone=dict(init_cfg=None, {SIZES}),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                  bbox_head=dict(in_channels=16, fc_out_channels=32)))
'''
# Nothing is learnt, so that weights can be compared.
TRAINING = '''
train_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=0.))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))
'''
HOOK = 'custom_hooks = [dict(type="AnnealingHook", start=0., end=0.6)]\n'
STARTS = dict(
    pretrained=(CLASSIFIER, 'model["backbone"]["init_cfg"] = dict('
                'type="Pretrained", checkpoint="out.pth", '
                'prefix="backbone.")\n'),
    load_from=(DETECTOR, 'load_from = "out.pth"\n'))


@pytest.fixture
def train(monkeypatch, tmp_path, digits):
    """Return a function that trains in epochs of one iteration."""
    monkeypatch.chdir(tmp_path)

    def run(config, *args):
        monkeypatch.setattr(sys, 'argv', [str(word) for word in (
            'train.py', config, '--data-root', digits, '--no-validate',
            '--seed', 0, *args)])
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')

    return run


def convert(text):
    """Write out.pth, made of a CNN that has seen data."""
    models = []
    for variant in ('cnn', 'ann-awn'):
        Path('it.py').write_text(text.replace('VARIANT', variant))
        config = Config.fromfile('it.py')
        models.append(build_model(config))
    cnn, model = models
    reestimate_statistics(
        cnn, [torch.randn(2, 3, 64, 64)], cnn.extract_feat)
    converted, *_ = convert_checkpoint(cnn.state_dict(), model, 'cnn')
    torch.save(dict(state_dict=converted,
                    meta=dict(cfg=config.pretty_text)), 'out.pth')
    return converted


def loaded(path):
    return torch.load(path, weights_only=False)['state_dict']


def fractions(path):
    return {value.item() for key, value in loaded(path).items()
            if key.endswith('.fraction')}


@pytest.mark.parametrize('start', STARTS)
def test_trained_and_resumed(start, train, capsys):
    source, line = STARTS[start]
    converted = convert(source)
    text = DETECTOR.replace('VARIANT', 'ann-awn') + TRAINING + line
    Path('forgotten.py').write_text(text)
    with pytest.raises(SystemExit) as stopped:
        train('forgotten.py')
    assert stopped.value.code == 2
    assert "add to custom_hooks: dict(type='AnnealingHook'" in \
        capsys.readouterr().err

    Path('config.py').write_text(text + HOOK)
    train('config.py')
    work = Path('work_dirs/config')
    assert fractions(work / 'epoch_1.pth') == {0}
    assert fractions(work / 'epoch_2.pth') == {1 / 3 / .6}
    assert fractions(work / 'epoch_3.pth') == {1}
    last = loaded(work / 'epoch_3.pth')
    parts = 'backbone.' if start == 'pretrained' else ''
    weights = [key for key in converted if key.startswith(parts)
               and key.endswith(('.weight', '.nu', '.upsilon'))
               and key in last]
    assert len(weights) > 40
    for key in weights:
        assert torch.equal(last[key], converted[key]), key

    train('config.py', '--work-dir', 'again', '--resume',
          work / 'epoch_2.pth')
    assert fractions('again/epoch_3.pth') == {1}
