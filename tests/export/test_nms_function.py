"""Suppression and alignment in ONNX against torchvision's operators."""
import pytest
import torch
from torchvision.ops import nms, roi_align

from mmadder.export.nms_function import ALIGN, SUPPRESS, nms_functions

pytest.importorskip('onnxruntime')
from onnx_tools import run_node


def run(kind, inputs, attributes, rank):
    call = run_node({kind: nms_functions(18)[kind]}, kind,
                    {name: value.numpy() for name, value in inputs.items()},
                    attributes, rank)
    return torch.from_numpy(call())


def random_boxes(*shape):
    corners = torch.rand(*shape, 2) * 10
    return torch.cat([corners, corners + 1 + torch.rand(*shape, 2) * 15], -1)


@pytest.mark.parametrize('iou', [.2, .5])
def test_suppressed_scores(iou):
    torch.manual_seed(0)
    boxes, scores = random_boxes(3, 40), torch.rand(3, 40)
    scores[1] = -1  # no candidates at all
    found = run(SUPPRESS, dict(boxes=boxes, scores=scores),
                dict(iou_threshold=iou, score_threshold=.2), 2)
    assert found.shape == (3, 40) and (found[1] == -1).all()
    for i in (0, 2):
        above = (scores[i] > .2).nonzero()[:, 0]
        kept = above[nms(boxes[i][above], scores[i][above], iou)]
        assert 1 < len(kept) < len(above)
        expected = torch.full((40, ), -1.)
        expected[kept] = scores[i][kept]
        assert torch.equal(found[i], expected)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('chosen', [
    [True, False, True, True, False], [False] * 5])
def test_aligned_regions(aligned, sampling_ratio, chosen):
    torch.manual_seed(0)
    features, regions = torch.randn(2, 4, 12, 9), random_boxes(5)
    samples, so_far = torch.tensor([0, 1, 1, 0, 0]), torch.randn(5, 4, 3, 2)
    chosen = torch.tensor(chosen)
    found = run(ALIGN, dict(features=features, regions=regions,
                            samples=samples, is_of_level=chosen,
                            so_far=so_far),
                dict(output_height=3, output_width=2, spatial_scale=.25,
                     sampling_ratio=sampling_ratio,
                     mode='half_pixel' if aligned else 'output_half_pixel'),
                4)
    expected = so_far.clone()
    expected[chosen] = roi_align(
        features, torch.cat([samples[:, None].float(), regions], 1)[chosen],
        (3, 2), .25, sampling_ratio or -1, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
