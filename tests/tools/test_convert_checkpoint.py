"""tools/convert_checkpoint.py, of detectors."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from tiny_detector import SMALL

from mmadder.models import build_model
from mmadder.statistics import reestimate_statistics

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / 'configs/digits/faster-rcnn_{0}-r18_{0}-fpn_1xb8-8e_'
             'digits.py')
# MMDetection's own neck, and heads for other classes.
THEIRS = f'_base_ = {DIGITS.format("cnn")!r}{SMALL}' + '''
model['neck']['_delete_'] = True
model['neck']['type'] = 'FPN'
model['neck']['num_outs'] = 5
model['roi_head']['bbox_head']['num_classes'] = 4
'''
OURS = f'_base_ = {DIGITS.format("ann-awn")!r}{SMALL}' + '''
model['neck']['shortcut'] = False
'''


@pytest.fixture
def convert(call_tool, monkeypatch, capsys, tmp_path, warnings):
    """Return a function that runs the tool and gives what it said."""
    monkeypatch.chdir(tmp_path)
    for name, text in dict(theirs=THEIRS, ours=OURS).items():
        Path(f'{name}.py').write_text(text)
    config = Config.fromfile('theirs.py')
    model = build_model(config)
    reestimate_statistics(
        model, [torch.randn(2, 3, 64, 64)], model.extract_feat)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(
        cfg=config.pretty_text,
        dataset_meta=dict(classes=tuple('abcd')))), 'theirs.pth')

    def run(*args, code=None):
        call_tool('convert_checkpoint.py', 'ours.py', 'theirs.pth',
                  'out.pth', *args, code=code)
        return ''.join([*capsys.readouterr(), *warnings])

    return run


def test_a_detector_of_mmdetection(convert, digits):
    text = convert('--source', 'cnn', '--calibrate', 1, '--data-root', digits)
    assert 'fc_reg.bias: of another number of classes' in text
    assert 'statistics of noise' not in text
    content = torch.load('out.pth', weights_only=False)
    assert 'dataset_meta' not in content['meta']  # of a head that is gone
    state = content['state_dict']
    assert state['neck.fpn_convs.3.conv.fraction'] == 0
    model = build_model(Config.fromfile('ours.py'))
    assert not model.load_state_dict(state, strict=False).unexpected_keys


def test_without_pictures_noise(convert):
    assert 'statistics of noise' in convert('--source', 'cnn')


def test_data_that_are_not_there(convert):
    assert 'nowhere' in convert('--source', 'cnn', '--calibrate', 1,
                                '--data-root', 'nowhere', code=2)
    assert not Path('out.pth').exists()


def test_options_that_do_not_go_together(convert):
    assert '--calibrate is for --source cnn' in convert(
        '--source', 'ann', '--calibrate', 1, code=2)
    assert 'must be at least 0, got -1' in convert(
        '--source', 'cnn', '--calibrate', -1, code=2)


def test_source_cnn_is_advised(convert):
    assert 'if it has convolutions only, --source cnn' in convert(code=2)
