"""What a file says about its network."""
import numpy as np
from mmengine.config import Config
from torch import nn

from mmadder.export.description import (
    configured_classes,
    describe,
    innermost_dataset,
)
from mmadder.models import build_model


def test_description_of_a_classifier(crops):
    cfg = crops[0]
    found = describe(build_model(cfg), cfg, 'classifier', ('a', 'b'))
    assert found['normalization'] == dict(
        swap_channels=True,
        mean=np.float32([123.675, 116.28, 103.53]).tolist(),
        std=np.float32([58.395, 57.12, 57.375]).tolist(),
        pad_size_divisor=1, pad_value=0.)
    assert found['variant'] == 'awn-centered' and found['bits'] == 32
    assert found['classes'] == ['a', 'b'] and found['kind'] == 'classifier'
    again = Config.fromstring(found['config'], '.py')
    assert again.model == cfg.model


def test_description_of_a_model_without_normalization():
    model = nn.Module()
    model.data_preprocessor = nn.Identity()
    found = describe(model, Config(dict(a=1)), 'dense', ())
    assert found['variant'] == 'cnn'
    assert found['normalization'] == dict(
        swap_channels=False, mean=[0.] * 3, std=[1.] * 3, pad_size_divisor=1,
        pad_value=0.)


def test_innermost_dataset():
    inner = dict(type='A', ann_file='x')
    cfg = Config(dict(a=dict(datasets=[dict(dataset=inner), dict(type='B')]),
                      b=inner))
    assert innermost_dataset(cfg.a) == innermost_dataset(cfg.b) == inner


def test_classes_of_a_wrapped_dataset():
    data = dict(type='Data', metainfo=dict(classes=('a', 'b')))
    for dataset in (data, dict(type='Repeat', dataset=data),
                    dict(type='Concat', datasets=[data, data])):
        cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
        assert configured_classes(cfg) == ('a', 'b')
    assert configured_classes(Config(dict(test_dataloader=dict(
        dataset=dict(type='Data'))))) == ()
