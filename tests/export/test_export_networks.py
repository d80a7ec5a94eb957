"""Names and tensors of what is exported up to the head."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmadder.errors import InputError
from mmadder.export import dense_network
from mmadder.models import build_model

COCO = Path(__file__).parents[2] / 'configs/coco'


def build(name):
    cfg = Config.fromfile(COCO / name)
    cfg.model.backbone.init_cfg = None
    return build_model(cfg).eval()


@pytest.mark.parametrize('name, outputs', [
    ('retinanet_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py',
     dict(cls_scores=5, bbox_preds=5)),
    ('fcos_ann-awn-r18_ann-awn-fpn_gn-head_8xb2-1x_coco.py',
     dict(cls_scores=5, bbox_preds=5, score_factors=5)),
    ('mask-rcnn_ann-awn-r18_ann-awn-fpn_8xb2-1x_coco.py',
     dict(neck=5, cls_scores=5, bbox_preds=5))])
def test_outputs(name, outputs):
    model = build(name)
    network = dense_network(model)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = network(images)  # which sets the names
        tensors = dict(zip(network.output_names, found))
        features = model.extract_feat(images)
        head = model.rpn_head if 'neck' in outputs else model.bbox_head
        expected = [*(features if 'neck' in outputs else ()),
                    *(level for part in head(features) for level in part)]
    assert list(tensors) == [f'{part}.{level}' for part, levels in
                             outputs.items() for level in range(levels)]
    for own, other in zip(tensors.values(), expected):
        torch.testing.assert_close(own, other)


def test_another_kind_of_model():
    with pytest.raises(InputError, match='the model is a Linear; classif'):
        dense_network(nn.Linear(3, 4))
