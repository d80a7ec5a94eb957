"""From config and checkpoint to a file that agrees, or to none."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmadder.errors import InputError
from mmadder.export import OnnxModel, export_onnx
from mmadder.inference import empty_quantized, save_quantized
from mmadder.layers import set_adder_fraction
from mmadder.models import build_model

pytest.importorskip('onnxruntime')
TOLERANCE = .01  # random weights amplify rounding


@pytest.fixture
def run(call_tool, monkeypatch, capsys, tmp_path):
    """Return a function that runs a tool and gives its output."""
    monkeypatch.chdir(tmp_path)

    def run_tool(name, *args, code=None):
        call_tool(name, *args, code=code)
        return '\n'.join(capsys.readouterr())

    return run_tool


def test_classifier_is_exported_and_tested(run, crops, digits, tmp_path):
    _, config, checkpoint = crops
    out = tmp_path / 'model.onnx'
    data = '--data-root', digits
    text = run('export_onnx.py', config, checkpoint, '--out', out, *data,
               '--pictures', 3, '--tolerance', TOLERANCE)
    assert 'logits' in text and 'on 3 test pictures' in text
    assert 'ONNX Runtime' in text
    model = OnnxModel(out)
    assert model.description['classes'] == list('0123456789')
    assert model.description['variant'] == 'awn-centered'
    assert model.size == (48, 48)
    for name, file in ('onnx', out), ('torch', checkpoint):
        run('test.py', config, file, *data, '--work-dir', name)
    onnx, torch_ = (json.loads(next(Path(name).glob('*/*.json')).read_text())
                    for name in ('onnx', 'torch'))
    assert onnx['accuracy/top1'] == torch_['accuracy/top1']

    refused = run('test.py', config, out, *data, '--fuse', code=2)
    assert 'change a model of PyTorch' in refused
    refused = run('test.py', config, out, *data, '--cfg-options',
                  'test_dataloader.dataset.metainfo.classes='
                  '[a,b,c,d,e,f,g,h,i,j]', code=2)
    assert 'is for other classes than the dataset' in refused
    assert "'0' in the file is 'a' in the dataset" in refused


def test_a_file_that_deviates_is_not_kept(
        run, crops, digits, tmp_path, monkeypatch):
    monkeypatch.setattr('mmadder.export.onnx_parity.ROUNDING', 0)
    _, config, checkpoint = crops
    out = tmp_path / 'out' / 'model.onnx'
    text = run('export_onnx.py', config, checkpoint, '--out', out,
               '--data-root', digits, '--tolerance', 1e-12, code=2)
    assert 'computes something else than PyTorch: logits deviates' in text
    assert list(out.parent.iterdir()) == []


def test_input_size(crops, tmp_path):
    cfg, _, checkpoint = crops
    out = tmp_path / 'model.onnx'
    parity = export_onnx(cfg, checkpoint, out, size=(50, 64), pictures=2,
                         tolerance=TOLERANCE)
    assert OnnxModel(out).size == (50, 64)
    assert parity.pictures == 2 and parity.bytes == out.stat().st_size
    with pytest.raises(InputError, match='are 48x48 .*, larger than 50x40'):
        export_onnx(cfg, checkpoint, out, size=(50, 40), pictures=2)


@pytest.fixture
def changed(crops, tmp_path):
    """Return a function that writes a checkpoint after a change."""
    def write(change):
        model = build_model(crops[0])
        change(model)
        path = tmp_path / 'changed.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        return str(path)

    return write


def test_on_its_way_from_a_convolution(crops, changed, tmp_path):
    checkpoint = changed(lambda model: set_adder_fraction(model, .3))
    with pytest.raises(InputError, match='export: .*adder_fraction 0.3'):
        export_onnx(crops[0], checkpoint, tmp_path / 'model.onnx', pictures=2)
    assert not (tmp_path / 'model.onnx').exists()


def test_8_bits(crops, tmp_path):
    path = tmp_path / 'int8.pth'
    save_quantized(empty_quantized(build_model(crops[0])), path)
    with pytest.raises(InputError, match='int8.pth is in 8 bits, which'):
        export_onnx(crops[0], str(path), tmp_path / 'model.onnx')


def test_name_and_missing_parts(crops, tmp_path):
    cfg, _, checkpoint = crops
    with pytest.raises(InputError, match='expected a name that ends with'):
        export_onnx(cfg, checkpoint, tmp_path / 'model.pth')
    with pytest.raises(InputError, match="'none.pth' does not exist"):
        export_onnx(cfg, 'none.pth', tmp_path / 'model.onnx')
    without = Config({key: value for key, value in cfg.items()
                      if key != 'test_dataloader'})
    with pytest.raises(InputError, match='has no test_dataloader'):
        export_onnx(without, checkpoint, tmp_path / 'model.onnx')
