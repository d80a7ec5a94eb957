"""Detectors end to end: pictures to boxes, scores and labels.

What MMDetection decides with boxes of a number that depends on the picture
is written with a fixed number here: what is not kept has a score below zero.
"""
import torch
from mmdet.models.dense_heads import RPNHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmadder.errors import InputError

from .nms_function import DROPPED, aligned_regions, suppressed_scores
from .onnx_graph import Network

MANY = 300  # boxes of a picture, where the config has no limit
DENSE = 'export its dense part instead (--dense)'


class DetectorNetwork(Network):
    """Normalized pictures (N, 3, H, W) and their sizes to boxes.

    ``sizes`` (N, 2), int64, are the heights and widths before padding, to
    which boxes are clipped.

    Outputs: ``boxes`` (N, K, 4), float32, corners x1, y1, x2, y2 in pixels
    of the input; ``scores`` (N, K), float32, falling; ``labels`` (N, K),
    int64. K is ``max_per_img`` of the config; rows after the last box have
    score 0 and label -1.
    """
    input_names = ('images', 'sizes')
    output_names = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def example(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        return *super().example(size), torch.tensor([size, size])

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        features = self.model.extract_feat(images)
        return self.detect(features, sizes)

    def detect(self, features: tuple[Tensor, ...],
               sizes: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores and labels of feature maps."""
        head = self.model.bbox_head
        return best_boxes(*dense_candidates(head, features, sizes),
                          head.test_cfg)


class TwoStageNetwork(DetectorNetwork):
    """The same for Faster R-CNN: RPN, RoIAlign and box head inside."""

    def detect(self, features: tuple[Tensor, ...],
               sizes: Tensor) -> tuple[Tensor, ...]:
        rpn, roi_head = self.model.rpn_head, self.model.roi_head
        regions, scores, _ = best_boxes(
            *dense_candidates(rpn, features, sizes), rpn.test_cfg)
        count = regions.shape[1]
        samples = torch.arange(sizes.shape[0]).repeat_interleave(count)
        maps = _region_features(roi_head.bbox_roi_extractor, features,
                                regions.flatten(0, 1), samples)
        logits, deltas = roi_head.bbox_head(maps)
        return best_boxes(*_region_candidates(
            roi_head.bbox_head, regions, scores > 0,
            logits.unflatten(0, (-1, count)),
            deltas.unflatten(0, (-1, count)), sizes,
            roi_head.test_cfg.score_thr), roi_head.test_cfg)


def detector_network(model: nn.Module) -> DetectorNetwork:
    """What is exported of a detector end to end.

    Raises:
        InputError: a detector whose way from tensors to boxes is not known
            here; the message names its part.
    """
    if isinstance(model, TwoStageDetector):
        _require_two_stages(model)
        return TwoStageNetwork(model)
    if isinstance(model, SingleStageDetector):
        _require_known(model.bbox_head, 'model.bbox_head')
        return DetectorNetwork(model)
    raise InputError(f'export: boxes of {type(model).__name__} cannot be '
                     f'exported; {DENSE}')


def dense_candidates(head: BaseDenseHead, features: tuple[Tensor, ...],
                     sizes: Tensor) -> tuple[Tensor, ...]:
    """Decode what a dense head finds: its best boxes of each level.

    Returns:
        Boxes (N, M, 4), scores (N, M) and groups (N, M), within which NMS
        acts: labels, or the levels of an RPN.
    """
    if isinstance(head, YOLOXHead):
        return _yolox_candidates(head, features)
    outputs = head(features)
    priors = head.prior_generator.grid_priors(
        [level.shape[-2:] for level in outputs[0]],
        dtype=outputs[0][0].dtype, device=outputs[0][0].device)
    levels = [_level_candidates(head, level, tensors)
              for level, tensors in enumerate(zip(priors, *outputs))]
    boxes, scores, groups = (torch.cat(part, 1) for part in zip(*levels))
    if getattr(head.bbox_coder, 'clip_border', True):
        boxes = _clipped(boxes, sizes)
    return boxes, scores, groups


def best_boxes(boxes: Tensor, scores: Tensor, groups: Tensor,
               test_cfg: ConfigDict) -> tuple[Tensor, ...]:
    """Non-maximum suppression within groups, then the best of all.

    Args:
        boxes: (N, M, 4).
        scores: (N, M), below zero of what is no candidate.
        groups: (N, M), int64.
        test_cfg: with ``nms`` and ``max_per_img``.
    Returns:
        Boxes (N, K, 4), scores (N, K) and groups (N, K); zeros, and group -1,
        behind the last one.
    """
    least = test_cfg.get('min_bbox_size', -1)
    if least >= 0:
        sides = boxes[..., 2:] - boxes[..., :2]
        scores = torch.where((sides > least).all(-1), scores, DROPPED)
    apart = boxes
    if not test_cfg.nms.get('class_agnostic', False):
        # As mmcv does: groups lie side by side.
        boxes = torch.where((scores > 0)[..., None], boxes, 0)
        reach = boxes.amax((1, 2)) + 1
        apart = boxes + (groups * reach[:, None])[..., None]
    scores = suppressed_scores(apart, scores, test_cfg.nms.iou_threshold)
    scores, index = _top(scores, test_cfg.get('max_per_img', MANY))
    found = scores > 0
    boxes = _rows(boxes, index) * found[..., None]
    return boxes, scores.clamp(min=0), torch.where(
        found, groups.gather(1, index), -1)


def _level_candidates(head, level, tensors):
    """(boxes, scores, groups) of the best of a level, not clipped."""
    priors, logits, deltas, *factors = tensors
    logits = _pixels_first(logits, head.cls_out_channels)
    scores = logits.sigmoid() if head.use_sigmoid_cls else \
        logits.softmax(-1)[..., :-1]
    classes = scores.shape[-1]
    cfg = head.test_cfg
    is_rpn = isinstance(head, RPNHead)
    if not is_rpn:
        scores = torch.where(scores > cfg.get('score_thr', 0), scores,
                             DROPPED)
    scores, index = _top(scores.flatten(1), cfg.get('nms_pre', -1))
    labels = index % classes
    index = index // classes
    deltas = _rows(_pixels_first(deltas, head.bbox_coder.encode_size), index)
    boxes = head.bbox_coder.decode(
        priors[index].flatten(0, 1), deltas.flatten(0, 1)).view_as(deltas)
    if factors:
        factor = _pixels_first(factors[0], 1)[..., 0].sigmoid()
        scores = scores * factor.gather(1, index)
    return boxes, scores, labels + level if is_rpn else labels


def _yolox_candidates(head, features):
    """Of YOLOX: each place has one class, and nothing is clipped."""
    logits, deltas, objectness = head(features)
    priors = torch.cat(head.prior_generator.grid_priors(
        [level.shape[-2:] for level in logits], dtype=logits[0].dtype,
        device=logits[0].device, with_stride=True))
    scores, labels = torch.cat([
        _pixels_first(level, head.cls_out_channels) for level in logits
    ], 1).sigmoid().max(-1)
    scores = scores * torch.cat([
        _pixels_first(level, 1)[..., 0] for level in objectness], 1).sigmoid()
    boxes = head._bbox_decode(priors, torch.cat(
        [_pixels_first(level, 4) for level in deltas], 1))
    return boxes, torch.where(scores >= head.test_cfg.score_thr, scores,
                              DROPPED), labels


def _region_features(extractor, features, regions, samples):
    """(R, C, h, w) of regions (R, 4), each from the level of its size."""
    features = features[:extractor.num_inputs]
    levels = extractor.map_roi_levels(
        torch.cat([samples[:, None].to(regions), regions], 1), len(features))
    size = extractor.roi_layers[0].output_size
    found = regions.new_zeros(
        regions.shape[0], extractor.out_channels, *size)
    for level, (layer, maps) in enumerate(zip(extractor.roi_layers,
                                              features)):
        found = aligned_regions(
            maps, regions, samples, levels == level, found,
            spatial_scale=layer.spatial_scale, aligned=layer.aligned,
            sampling_ratio=layer.sampling_ratio)
    return found


def _region_candidates(head, regions, valid, logits, deltas, sizes,
                       threshold):
    """(boxes, scores, labels), (N, K * classes, ...), of regions (N, K, 4)."""
    scores = logits.softmax(-1)[..., :-1]
    classes = scores.shape[-1]
    scores = torch.where((scores > threshold) & valid[..., None], scores,
                         DROPPED)
    own = 1 if head.reg_class_agnostic else classes
    # (N, K, own, 4): a region's boxes, one for each class or for all.
    deltas = deltas.unflatten(-1, (own, 4))
    regions = regions[:, :, None].expand_as(deltas)
    boxes = head.bbox_coder.decode(
        regions.flatten(0, 2), deltas.flatten(0, 2)).view_as(deltas)
    if head.bbox_coder.clip_border:
        boxes = _clipped(boxes.flatten(1, 2), sizes).view_as(boxes)
    boxes = boxes.expand(-1, -1, classes, -1).flatten(1, 2)
    labels = torch.arange(classes).expand_as(scores).flatten(1)
    return boxes, scores.flatten(1), labels


def _top(scores, count):
    """The best scores (N, count), falling, and their places; all if -1.

    Where there are fewer, or may be, the last score is followed by DROPPED.
    """
    total = scores.shape[1]
    if count < 0:
        count = total
    if not isinstance(total, int):  # of pictures of any size
        filler = scores.new_full((scores.shape[0], count), DROPPED)
        scores = torch.cat([scores, filler], 1)
    elif count > total:
        count = total
    scores, index = scores.topk(count)
    return scores, index.clamp(max=total - 1)


def _rows(values, index):
    """Rows (N, M, D) at places (N, K): (N, K, D)."""
    return values.gather(1, index[..., None].expand(
        -1, -1, values.shape[-1]))


def _pixels_first(level, channels):
    """(N, A * channels, H, W) to (N, H * W * A, channels)."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels)


def _clipped(boxes, sizes):
    """Boxes (N, M, 4) within heights and widths (N, 2)."""
    most = sizes.flip(1).repeat(1, 2)[:, None].to(boxes)  # w, h, w, h
    return torch.minimum(boxes.clamp(min=0), most)


def _require_two_stages(model):
    _require_known(model.rpn_head, 'model.rpn_head')
    parts = {'model.roi_head': (model.roi_head, StandardRoIHead)}
    if hasattr(model.roi_head, 'bbox_head'):
        parts['model.roi_head.bbox_head'] = model.roi_head.bbox_head, BBoxHead
    if hasattr(model.roi_head, 'bbox_roi_extractor'):
        parts['model.roi_head.bbox_roi_extractor'] = (
            model.roi_head.bbox_roi_extractor, SingleRoIExtractor)
    for name, (part, known) in parts.items():
        methods = [method for method in (
            'predict', 'predict_bbox', '_bbox_forward',
            '_predict_by_feat_single', 'map_roi_levels')
            if hasattr(known, method)]
        if not isinstance(part, known) or any(
                getattr(type(part), method) is not getattr(known, method)
                for method in methods):
            raise InputError(_unknown(name, part))
    if model.roi_head.bbox_head.custom_cls_channels:
        raise InputError(_unknown('model.roi_head.bbox_head.loss_cls',
                                  model.roi_head.bbox_head.loss_cls))
    if model.roi_head.with_mask:
        raise InputError(_unknown('model.roi_head.mask_head',
                                  model.roi_head.mask_head))
    for layer in model.roi_head.bbox_roi_extractor.roi_layers:
        if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
            raise InputError(_unknown('model.roi_head.bbox_roi_extractor',
                                      layer))
    _require_nms('model.roi_head', model.roi_head.test_cfg)


def _require_known(head, name):
    """Only heads that decode as BaseDenseHead, an RPN or YOLOX do."""
    known = next((kind for kind in (YOLOXHead, RPNHead, BaseDenseHead)
                  if isinstance(head, kind)), None)
    methods = ('predict_by_feat', '_predict_by_feat_single',
               '_bbox_post_process')
    if known is None or any(
            getattr(type(head), method, None) is not
            getattr(known, method, None) for method in methods):
        raise InputError(_unknown(name, head))
    _require_nms(name, head.test_cfg)


def _require_nms(name, test_cfg):
    kind = (test_cfg.get('nms') or {}).get('type')
    if kind != 'nms':
        raise InputError(f'export: {name} has nms of type {kind!r} in its '
                         "test_cfg, only 'nms' can be exported; set it, or "
                         f'{DENSE}')


def _unknown(name, part):
    return (f'export: how {name} ({type(part).__name__}) makes boxes cannot '
            f'be exported; {DENSE}')
