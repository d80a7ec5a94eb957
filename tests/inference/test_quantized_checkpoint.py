import torch
from small_classifier import make_batches, make_classifier

from mmadder.inference import (
    empty_quantized,
    is_quantized,
    quantize,
    save_quantized,
)


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


def test_other_files_are_not_quantized(tmp_path):
    path = tmp_path / 'float.pth'
    torch.save(dict(meta=dict(epoch=1), state_dict={}), path)
    assert not is_quantized(str(path))
    path.write_text('no checkpoint')
    assert not is_quantized(str(path))
    assert not is_quantized(str(tmp_path / 'missing.pth'))
