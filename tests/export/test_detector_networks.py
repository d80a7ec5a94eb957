"""Detectors end to end beside MMDetection's own predictions."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from settling import settle
from torch import nn

from mmadder.errors import InputError
from mmadder.export import Network, detector_network, to_onnx
from mmadder.export.detector_networks import best_boxes
from mmadder.export.onnx_parity import _compare_boxes
from mmadder.export.onnx_testing import boxes_of, picture_sizes
from mmadder.models import build_model

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from onnx_tools import start  # noqa: E402

COCO = Path(__file__).parents[2] / 'configs/coco'
SMALL = dict(
    backbone=dict(init_cfg=None, stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16))
DENSE = dict(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3)
SIZE = 64, 96
RETINANET = 'retinanet_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py'


def build(name, **changes):
    cfg = Config.fromfile(COCO / name)
    cfg.merge_from_dict(dict(model=changes))
    torch.manual_seed(0)
    model = build_model(cfg)
    settle(model, torch.randn(8, 3, 64, 64), run=model.extract_feat)
    for name, module in model.named_modules():
        # Scores and boxes of all sorts, as random weights do not give them.
        if 'head' in name and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight,
                            std=2 / module.weight[0].numel()**.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=.2)
    return model


def single_stage(name, **head):
    return build(name, bbox_head=dict(DENSE, **head), **SMALL)


def predictions(model, images, sizes):
    samples = [DetDataSample(metainfo=dict(
        img_shape=tuple(size), ori_shape=tuple(size), scale_factor=(1., 1.),
        batch_input_shape=tuple(images.shape[2:]))) for size in sizes]
    with torch.no_grad():
        return samples, [sample.pred_instances for sample in
                         model.predict(images, samples, rescale=False)]


def require_equal(model, exported, images, sizes):
    session = start(exported)
    samples, expected = predictions(model, images, sizes)
    assert sum(map(len, expected)) >= 20
    outputs = dict(zip(('boxes', 'scores', 'labels'), map(
        torch.from_numpy, session.run(None, dict(
            images=images.numpy(), sizes=picture_sizes(samples).numpy())))))
    found = [boxes_of(outputs, i) for i in range(len(samples))]
    for entry in _compare_boxes([(expected, found)], 0):
        assert entry.holds, entry
    behind = outputs['labels'] < 0
    assert (outputs['scores'][behind] == 0).all()
    assert (outputs['boxes'][behind] == 0).all()
    return outputs


def test_faster_rcnn(detector, boxes_file):
    exported = onnx.load(boxes_file[0])
    torch.manual_seed(1)
    # Of 96x96 pixels, padded; the pictures are smaller.
    outputs = require_equal(detector[2].model, exported,
                            torch.randn(3, 3, 96, 96),
                            [(96, 96), (64, 70), (40, 96)])
    assert outputs['boxes'].shape == (3, 100, 4)
    kinds = {node.op_type for node in exported.graph.node
             if node.domain == 'mmadder'}
    assert kinds == {'AdderConv2d', 'SuppressedScores', 'AlignedRegions'}


@pytest.mark.slow
def test_any_size():
    model = single_stage(RETINANET)
    torch.manual_seed(1)
    exported = to_onnx(detector_network(model), SIZE, dynamic_size=True)
    require_equal(model, exported, torch.randn(2, 3, *SIZE),
                  [(64, 90), (50, 96)])
    require_equal(model, exported, torch.randn(1, 3, 96, 64), [(96, 60)])


@pytest.mark.slow
@pytest.mark.parametrize('name, head', [
    (RETINANET, {}),
    ('fcos_ann-awn-r18_ann-awn-fpn_gn-head_8xb2-1x_coco.py',
     dict(norm_cfg=dict(type='GN', num_groups=4, requires_grad=True))),
    ('atss_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py',
     dict(norm_cfg=None))])
def test_single_stages(name, head):
    model = single_stage(name, **head)
    torch.manual_seed(1)
    exported = to_onnx(detector_network(model), SIZE)
    require_equal(model, exported, torch.randn(2, 3, *SIZE),
                  [(64, 90), (50, 96)])


@pytest.mark.slow
def test_yolox():
    model = build('yolox_ann-awn-s_ann-awn-pafpn_8xb8-300e_coco.py',
                  backbone=dict(widen_factor=.125),
                  neck=dict(in_channels=[32, 64, 128], out_channels=32),
                  bbox_head=dict(in_channels=32, feat_channels=32,
                                 num_classes=3))
    torch.manual_seed(1)
    exported = to_onnx(detector_network(model), SIZE)
    require_equal(model, exported, torch.randn(2, 3, *SIZE),
                  [(64, 96), (64, 96)])


@pytest.mark.parametrize('name, part', [
    ('cascade-rcnn_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py',
     r'model\.roi_head \(CascadeRoIHead\)'),
    ('mask-rcnn_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py',
     r'model\.roi_head\.mask_head \(FCNMaskHead\)')])
def test_others_are_refused(name, part):
    cfg = Config.fromfile(COCO / name)
    cfg.model.backbone.init_cfg = None
    with pytest.raises(InputError, match=(
            f'how {part} makes boxes cannot be exported; export its dense')):
        detector_network(build_model(cfg))


def test_a_roi_head_with_another_forward(detector):
    cfg = detector[1]
    cfg.model.roi_head.update(type='DoubleHeadRoIHead',
                              reg_roi_scale_factor=1.3)
    with pytest.raises(InputError, match=(
            r'how model\.roi_head \(DoubleHeadRoIHead\) makes boxes')):
        detector_network(build_model(cfg))


def test_another_suppression():
    model = single_stage(RETINANET)
    model.bbox_head.test_cfg.nms.type = 'soft_nms'
    with pytest.raises(InputError, match=(
            "model.bbox_head has nms of type 'soft_nms'")):
        detector_network(model)


def test_another_kind_of_model():
    with pytest.raises(InputError, match='boxes of Linear cannot be'):
        detector_network(nn.Linear(3, 4))


class Boxes(Network):
    """Two of one class that overlap, one more, and one that is none."""
    output_names = 'boxes', 'scores', 'labels'

    def __init__(self, far):
        super().__init__()
        self.register_buffer('boxes', torch.tensor([
            [100., 100, 120, 120], [101, 100, 121, 120], [300, 50, 340, 90],
            [0, 0, far, far]]))
        self.register_buffer('scores', torch.tensor([.9, .8, .7, -1]))
        self.register_buffer('labels', torch.tensor([79, 79, 0, 3]))

    def forward(self, images):
        zero = images.flatten(1)[:, :1] * 0
        count = images.shape[0]
        return best_boxes(
            self.boxes[None].expand(count, -1, -1) + zero[..., None],
            self.scores[None].expand(count, -1) + zero,
            self.labels[None].expand(count, -1),
            ConfigDict(nms=dict(iou_threshold=.5), max_per_img=4))


@pytest.mark.parametrize('far', [1e6, 1e7, float('inf')])
def test_a_box_that_is_none_does_not_count(far):
    """YOLOX's may be huge; beside its reach all others fell together."""
    session = start(to_onnx(Boxes(far), (8, 8)))
    _, scores, labels = session.run(
        None, dict(images=np.zeros((2, 3, 8, 8), np.float32)))
    np.testing.assert_allclose(scores, [[.9, .7, 0, 0]] * 2)
    np.testing.assert_array_equal(labels, [[79, 0, -1, -1]] * 2)
