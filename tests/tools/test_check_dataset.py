"""tools/check_dataset.py, and the config of docs/own_data.md."""
import re
from pathlib import Path

import cv2
import pytest
from conftest import CLASSES
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/own_data/' \
    'faster-rcnn_ann-awn-centered-r18_ann-awn-centered-fpn_1xb4-24e_own.py'


@pytest.fixture
def run(call_tool, capsys):
    """Return a function that runs the tool and gives (stdout, stderr)."""

    def run_tool(*args, code=None):
        call_tool('check_dataset.py', *args, code=code)
        return capsys.readouterr()

    return run_tool


def test_sound_set(run, voc, tmp_path):
    out, _ = run(CONFIG, '--data-root', voc, '--out', tmp_path / 'out',
                 '--pictures', 2)
    assert '6 classes, from' in out
    assert 'train_dataloader: 6 pictures' in out
    assert re.search(r'5 +1 +16.7% +1', out)
    assert 'classes without any example: 3, 4, 5' in out  # of val
    assert out.endswith('No fault would stop a training.\n')
    sheet = cv2.imread(str(tmp_path / 'out' / '2-val.png'))
    assert sheet.shape == (256, 2 * 256 + 8, 3)


def test_faults(run, voc, tmp_path):
    for name in ('train_0', 'train_3', 'val_1'):
        (voc / 'JPEGImages' / f'{name}.jpg').unlink()
    out, error = run(CONFIG, '--data-root', voc, '--out', tmp_path / 'out',
                     '--classes', *CLASSES, code=2)
    for name in ('train_0', 'train_3', 'val_1'):
        assert f'JPEGImages/{name}.jpg does not exist' in out
    assert error == ('check_dataset.py: 3 faults, listed above, would stop '
                     'a training\n')


def test_config_of_the_page(run, voc, tmp_path):
    """Ten lines: data root and classes once."""
    page = (ROOT / 'docs' / 'own_data.md').read_text()
    text, resized = re.findall(
        r'```python\n((?:_base_|train_pipeline) .*?)```', page, re.S)
    assert len(text.splitlines()) <= 12
    path = tmp_path / 'mine.py'
    text = text.replace("'configs/", f"'{ROOT}/configs/")
    text = re.sub(r"data_root = '.*'", f'data_root = {str(voc)!r}', text)
    path.write_text(re.sub(r"classes=\(.*?\)", "classes=tuple('012345')",
                           text))
    loaders = [Config.fromfile(path)[f'{split}_dataloader'].dataset
               for split in ('train', 'val', 'test')]
    assert {node.data_root for node in loaders} == {str(voc)}
    assert {tuple(node.metainfo.classes) for node in loaders} == {
        tuple('012345')}
    assert loaders[2].ann_file == 'ImageSets/Main/test.txt'
    out, _ = run(path, '--out', tmp_path / 'out')
    assert out.endswith('No fault would stop a training.\n')
    path.write_text(path.read_text() + resized)
    cfg = Config.fromfile(path)
    assert cfg.train_dataloader.dataset.pipeline[2].scale == (1000, 600)
    assert cfg.train_dataloader.dataset.pipeline[3].prob == 0
    assert cfg.test_pipeline[1].scale == (1000, 600)
