import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.runner import load_checkpoint
from small_classifier import make_batches, make_classifier
from torch import nn

from mmadder.errors import InputError
from mmadder.inference import (
    empty_quantized,
    is_quantized,
    quantize,
    save_quantized,
)
from mmadder.layers import AdderConv2d

AWN = dict(type='AdderConv2d', weight_norm='AWN')


def test_checkpoint(tmp_path):
    model, path = make_classifier(), str(tmp_path / 'folder' / 'int8.pth')
    quantized = quantize(model, make_batches(1), progress=False)
    save_quantized(quantized, path, dict(dataset_meta=dict(classes=('a', ))))
    assert is_quantized(path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint['meta']['dataset_meta'] == dict(classes=('a', ))
    loaded = empty_quantized(make_classifier())
    loaded.load_state_dict(checkpoint['state_dict'])
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(x, mode='tensor')[0],
                           quantized(x, mode='tensor')[0])


@pytest.mark.parametrize('load', [
    load_checkpoint,
    lambda model, path: model.load_state_dict(
        torch.load(path)['state_dict'], strict=False)])
def test_float_model_refuses_it(tmp_path, load):
    """MMEngine would skip all keys, and the model find nothing."""
    path = str(tmp_path / 'int8.pth')
    save_quantized(empty_quantized(make_classifier()), path)
    with pytest.raises(InputError, match='8 bits.*empty_quantized'):
        load(make_classifier(), path)


@pytest.mark.parametrize('build', [
    lambda: ConvModule(4, 6, 3, conv_cfg=AWN, norm_cfg=dict(type='BN')),
    lambda: nn.Sequential(AdderConv2d(4, 6, 3), nn.BatchNorm2d(6)),
    lambda: nn.Sequential(AdderConv2d(4, 6, 3))])
def test_wherever_its_adders_are(build):
    state_dict = empty_quantized(nn.Sequential(build())).state_dict()
    with pytest.raises(InputError, match='8 bits'):
        nn.Sequential(build()).load_state_dict(state_dict, strict=False)


def test_other_files_are_not_quantized(tmp_path):
    path = tmp_path / 'float.pth'
    for meta in (dict(epoch=1), None):
        torch.save(dict(meta=meta, state_dict={}), path)
        assert not is_quantized(str(path)) and not is_quantized(path)
    path.write_text('no checkpoint')
    assert not is_quantized(str(path))
    assert not is_quantized(str(tmp_path / 'missing.pth'))
