"""A tiny classifier, its config and two checkpoints of it."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmadder.analysis.testing import reestimate_on_batches, training_batches
from mmadder.layers import AdderConv2d
from mmadder.models import build_model

CONFIG = '''
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[127.] * 3, std=[60.] * 3)
model = dict(type='ImageClassifier', backbone=dict(type='TinyAdder'),
             head=dict(type='LinearClsHead', num_classes=10, in_channels=6))
loader = dict(
    batch_size=8, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CIFAR10Images', data_root='{root}', split='trainval',
                 pipeline=[dict(type='PackInputs')]))
train_dataloader = loader
test_dataloader = loader
test_evaluator = dict(type='Accuracy', topk=(1, ))
'''


@MODELS.register_module(force=True)
class TinyAdder(nn.Module):

    def __init__(self, weight_norm=None):
        super().__init__()
        self.conv = AdderConv2d(3, 6, 3, stride=4, weight_norm=weight_norm)
        self.bn = nn.BatchNorm2d(6)

    def forward(self, x):
        return (self.bn(self.conv(x)).mean((2, 3)), )


@pytest.fixture
def cfg(cifar):
    return Config.fromstring(CONFIG.format(root=cifar), '.py')


@pytest.fixture
def pair(cfg, tmp_path):
    """Two checkpoints, apart enough for the accuracy to change between."""
    names = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model(cfg)
        nn.init.normal_(model.head.fc.weight)
        reestimate_on_batches(model, training_batches(cfg, 2))
        model.backbone.bn.num_batches_tracked.fill_(10 + seed)
        names.append(str(tmp_path / f'epoch_{seed}.pth'))
        torch.save(dict(state_dict=model.state_dict(), meta={}), names[-1])
    return names
