"""A detector small enough to be attacked in tests."""
from pathlib import Path

import torch
from mmengine.config import Config
from torch.nn.modules.batchnorm import _BatchNorm

from mmadder.models import build_model
from mmadder.robustness import Pictures, PixelDetector

ROOT = Path(__file__).parents[1]
BASE = ROOT / 'configs/digits/faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_' \
    'digits.py'
SMALL = '''
model = dict(
    backbone=dict(init_cfg=None, stem_channels=8, base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32)))
'''
# Pictures of 64x64 become 80x80, are padded to 96x96, and their boxes stay.
CONFIG = f'''
_base_ = {str(BASE)!r}
{SMALL}
resize = dict(type='Resize', scale=(80, 80), keep_ratio=True)
pipeline = _base_.test_pipeline
pipeline[1] = resize
test_dataloader = dict(batch_size=2, dataset=dict(pipeline=pipeline))
'''
TWIN = '''
model['backbone']['conv_cfg'] = None
model['neck']['conv_cfg'] = None
'''


def make_detector(folder, root, text=''):
    """Config, checkpoint and model with statistics of the pictures."""
    (folder / 'tiny.py').write_text(CONFIG + text)
    cfg = Config.fromfile(folder / 'tiny.py')
    cfg.test_dataloader.dataset.data_root = str(root)
    torch.manual_seed(0)
    model = build_model(cfg)
    network = PixelDetector(model)
    images, _ = Pictures(cfg, batch_size=3).load(0)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train().features(images)
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    return folder, cfg, network.eval()
