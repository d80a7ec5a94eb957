"""What a file says about itself, and how it is refused."""
import pytest
import torch

from mmadder.errors import InputError
from mmadder.export import OnnxModel, is_onnx
from mmadder.export.onnx_file import padded

pytest.importorskip('onnxruntime')
from onnx_tools import write_file


def test_run(tmp_path):
    path = write_file(
        tmp_path / 'a.onnx', format_version=1, classes=['a', 'b'],
        config='x = 1\n', normalization=dict(mean=[1., 2., 3.]))
    model = OnnxModel(path)
    assert model.description == dict(
        format_version=1, classes=['a', 'b'], config='x = 1\n',
        normalization=dict(mean=[1., 2., 3.]))
    assert model.size == (3, 4)
    images = torch.randn(2, 3, 4, 3).mT  # not contiguous
    torch.testing.assert_close(model(images), dict(logits=2 * images))


def test_another_size(tmp_path):
    model = OnnxModel(write_file(tmp_path / 'a.onnx', format_version=1))
    with pytest.raises(InputError, match=(
            'takes pictures of 3x4, got 5x4 .*--dynamic-size, or')):
        model(torch.zeros(1, 3, 5, 4))


@pytest.mark.parametrize('description, message', [
    ({}, 'was not written by tools/export_onnx.py'),
    (dict(format_version=2), 'has format version 2, this mmadder reads 1')])
def test_other_files(tmp_path, description, message):
    with pytest.raises(InputError, match=f'a.onnx {message}'):
        OnnxModel(write_file(tmp_path / 'a.onnx', **description))


def test_damaged_and_missing(tmp_path):
    path = tmp_path / 'a.onnx'
    path.write_bytes(b'no protobuf')
    with pytest.raises(InputError, match='cannot be read as an ONNX file'):
        OnnxModel(path)
    with pytest.raises(InputError, match='does not exist'):
        OnnxModel(tmp_path / 'b.onnx')


@pytest.mark.parametrize('path, expected', [
    ('a/b.onnx', True), ('b.pth', False), ('onnx', False)])
def test_is_onnx(path, expected):
    assert is_onnx(path) is expected


@pytest.mark.parametrize('size, expected', [
    ((None, None), (5, 7)), ((8, 7), (8, 7)), ((4, 9), (5, 9))])
def test_padded(size, expected):
    images = torch.randn(2, 3, 5, 7)
    output = padded(images, size)
    assert output.shape[2:] == expected
    assert torch.equal(output[..., :5, :7], images)
    assert output.count_nonzero() == images.count_nonzero()
