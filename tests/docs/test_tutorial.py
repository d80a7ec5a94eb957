"""The notebook, executed on a tiny set."""
import json
from pathlib import Path

import pytest
from tiny_detector import ROOT

NOTEBOOK = ROOT / 'docs' / 'tutorial.ipynb'
SMALL = '''
data, work_dir, epochs = {data!r}, {work_dir!r}, 1
options = [
    'model.backbone.init_cfg=None',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale=(64,64)',
    'test_dataloader.dataset.pipeline.1.scale=(64,64)',
    'model.backbone.stem_channels=8', 'model.backbone.base_channels=8',
    'model.neck.in_channels=[8,16,32,64]', 'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False']
'''


def cells():
    notebook = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    return [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']


def test_it_is_committed_without_outputs():
    assert all(not cell['outputs'] and cell['execution_count'] is None
               for cell in cells())


@pytest.mark.slow
def test_from_a_folder_to_a_file_of_integers(voc, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    work_dir = tmp_path / 'tutorial'
    first, *others = cells()
    assert first['metadata']['tags'] == ['parameters']
    names = {}
    exec(SMALL.format(data=str(voc), work_dir=str(work_dir)), names)
    for cell in others:
        exec(''.join(cell['source']), names)
    for path in ('seen.png', 'integers.png', 'model.npz', 'data'):
        assert Path(work_dir, path).exists()
