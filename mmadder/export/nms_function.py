"""What detectors do between their tensors, as ONNX local functions.

Their insides have sizes that depend on the data (how many boxes are kept, how
many regions a level has), their outputs do not: so a detector is traced with
sizes that are known, and takes any batch.
"""
import torch
from torch import Tensor

from .adder_function import DOMAIN, VERSION

SUPPRESS, ALIGN = 'SuppressedScores', 'AlignedRegions'
DROPPED = -1.  # the score of a box that is not kept

_SUPPRESS = f'''
{SUPPRESS} <iou_threshold, score_threshold> (boxes, scores) => (output)
{{
  class_axis = Constant <value_ints = [1]> ()
  of_one_class = Unsqueeze (scores, class_axis)
  all_of_them = Shape <start = 1, end = 2> (scores)
  iou = Constant <value_float: float = @iou_threshold> ()
  least = Constant <value_float: float = @score_threshold> ()
  kept = NonMaxSuppression (boxes, of_one_class, all_of_them, iou, least)
  sample_and_box = Constant <value_ints = [0, 2]> ()
  places = Gather <axis = 1> (kept, sample_and_box)
  kept_scores = GatherND (scores, places)
  shape = Shape (scores)
  dropped = ConstantOfShape <value = float[1] {{{DROPPED}}}> (shape)
  output = ScatterND (dropped, places, kept_scores)
}}
'''
_ALIGN = f'''
{ALIGN} <output_height, output_width, spatial_scale, sampling_ratio, mode>
    (features, regions, samples, is_of_level, so_far) => (output)
{{
  found = NonZero (is_of_level)
  places = Transpose <perm = [1, 0]> (found)
  first = Constant <value_ints = [0]> ()
  rows = Squeeze (found, first)
  own_regions = Gather (regions, rows)
  own_samples = Gather (samples, rows)
  aligned = RoiAlign <mode = "avg", output_height: int = @output_height,
    output_width: int = @output_width, spatial_scale: float = @spatial_scale,
    sampling_ratio: int = @sampling_ratio,
    coordinate_transformation_mode: string = @mode>
    (features, own_regions, own_samples)
  output = ScatterND (so_far, places, aligned)
}}
'''


def nms_functions(opset: int) -> dict[str, str]:
    """{name: a local function in ONNX's text format}."""
    head = f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>'
    return {SUPPRESS: head + _SUPPRESS, ALIGN: head + _ALIGN}


def suppressed_scores(boxes: Tensor, scores: Tensor, iou_threshold: float,
                      score_threshold: float = 0.) -> Tensor:
    """Non-maximum suppression, for tracing.

    Args:
        boxes: (N, M, 4), corners.
        scores: (N, M).
        iou_threshold: a box that overlaps a better one by more is dropped.
        score_threshold: boxes without a higher score are dropped.
    Returns:
        (N, M), scores, DROPPED of boxes that are not kept.
    """
    return torch.onnx.ops.symbolic(
        f'{DOMAIN}::{SUPPRESS}', (boxes, scores),
        dict(iou_threshold=float(iou_threshold),
             score_threshold=float(score_threshold)),
        dtype=scores.dtype, shape=scores.shape, version=VERSION)


def aligned_regions(features: Tensor, regions: Tensor, samples: Tensor,
                    is_of_level: Tensor, so_far: Tensor, *,
                    spatial_scale: float, sampling_ratio: int,
                    aligned: bool) -> Tensor:
    """RoIAlign of the regions of one level, for tracing.

    Args:
        features: (N, C, H, W) of the level.
        regions: (R, 4), corners in pixels of the picture, of all levels.
        samples: (R,) int64, in which picture each one is.
        is_of_level: (R,) bool, which ones are of this level.
        so_far: (R, C, h, w), of the levels before; says the output's size.
        spatial_scale, sampling_ratio, aligned: as mmcv's RoIAlign has them.
    Returns:
        ``so_far`` with the level's regions.
    """
    return torch.onnx.ops.symbolic(
        f'{DOMAIN}::{ALIGN}',
        (features, regions, samples, is_of_level, so_far),
        dict(output_height=so_far.shape[2], output_width=so_far.shape[3],
             spatial_scale=float(spatial_scale),
             sampling_ratio=int(sampling_ratio),
             mode='half_pixel' if aligned else 'output_half_pixel'),
        dtype=features.dtype, shape=so_far.shape, version=VERSION)
