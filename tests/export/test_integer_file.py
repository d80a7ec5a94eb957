"""Integer networks beside a config."""
import pytest
import torch

from mmadder.export.integer_file import is_integer, picture_codes


@pytest.mark.parametrize('path, expected', [
    ('a/b.npz', True), ('b.onnx', False), ('npz', False)])
def test_files_are_known_by_their_names(path, expected):
    assert is_integer(path) == expected


def test_bytes_of_normalized_pictures():
    codes = torch.arange(256).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    mean_, std_ = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))
    found = picture_codes((codes - mean_) / std_, mean, std, pad_value=0.)
    assert found.dtype == torch.uint8 and torch.equal(found, codes.byte())
    # What a batch is padded with, and what lies beyond bytes.
    found = picture_codes(torch.tensor([0., 9., -9.]).view(1, 1, 1, 3), mean,
                          std)
    assert found[0, :, 0].tolist() == [[124, 255, 0], [116, 255, 0],
                                       [104, 255, 0]]
