"""The quickstart's stages, on a tenth of a minute of data."""
import importlib.util
import json
import os
import shlex
from pathlib import Path

import pytest

from mmadder.datasets import make_digits

ROOT = Path(__file__).parents[2]
DETECTOR = 'faster-rcnn_cnn-r18_cnn-fpn_1xb8-8e_digits.py'
CLASSIFIER = 'cnn-resnet18_1xb32-5e_digits.py'
ONE_EPOCH = '''_base_ = {base!r}
max_epochs = 1
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='ConstantLR', factor=1.)]
'''


def load_script():
    spec = importlib.util.spec_from_file_location(
        'quickstart', ROOT / 'tools' / 'quickstart.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


quickstart = load_script()


@pytest.fixture
def digits(tmp_path):
    """A set with few pictures, and its stage marked as done."""
    root, work_dir = tmp_path / 'data', tmp_path / 'work'
    make_digits(root, scenes=(8, 4, 4), crops=(40, 10, 10))
    work_dir.mkdir()
    script = os.path.relpath(ROOT / 'tools' / 'make_digits.py')
    command = shlex.join(['python', script, str(root)])
    (work_dir / 'data.done.json').write_text(json.dumps(
        dict(stage='data', command=command, seconds=1)))
    return root, work_dir


@pytest.mark.slow
def test_all_stages_then_none(digits, tmp_path, monkeypatch, capfd):
    configs = tmp_path / 'configs'
    configs.mkdir()
    for name in (DETECTOR, CLASSIFIER):
        base = str(ROOT / 'configs' / 'digits' / name)
        (configs / name).write_text(ONE_EPOCH.format(base=base))
    monkeypatch.setattr(quickstart, 'CONFIGS', configs)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    root, work_dir = digits

    summary, page = quickstart.Quickstart(work_dir, root, 'cnn', 0).run()
    assert 0 <= summary['mAP'] <= 1 and summary['pictures'] == 4
    assert [entry['stage'] for entry in summary['stages']] == [
        'data', 'pretrain', 'detect', 'test']
    assert len(summary['classes']) == 10
    text = page.read_text()
    assert f'{summary["mAP"]:.3f}' in text and 'tools/train.py' in text
    assert os.path.samefile(page.parent, work_dir / 'report')

    capfd.readouterr()
    again, _ = quickstart.Quickstart(work_dir, root, 'cnn', 0).run()
    assert again == summary
    assert capfd.readouterr().out.count('done before') == 4

    with pytest.raises(SystemExit, match='other settings'):
        quickstart.Quickstart(work_dir, root, 'cnn', 1).run()


def test_failed_stage_leaves_no_stamp(digits):
    root, work_dir = digits
    start = quickstart.Quickstart(work_dir, root, 'ann-awn', 0)
    with pytest.raises(SystemExit, match='tools/test.py failed, see above'):
        start.stage('test', 'tools/test.py', 'missing.py', 'missing.pth')
    assert not (work_dir / 'test.done.json').exists()
