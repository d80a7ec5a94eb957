"""The configs of docs/from_cnn.md, which has no data to run with."""
import re

import pytest
from documented_commands import ROOT
from mmengine.config import Config, DictAction

from mmadder.checkpoints import variant_of
from mmadder.layers import find_adders
from mmadder.models import build_model

PAGE = (ROOT / 'docs/from_cnn.md').read_text()


@pytest.fixture
def configs(tmp_path):
    """Return both, the backbone's and the whole detector's."""
    result = []
    for text in re.findall(r'```python\n(.*?)```', PAGE, re.S):
        path = tmp_path / f'config_{len(result)}.py'
        path.write_text(text.replace("'configs/", f"'{ROOT}/configs/"))
        result.append(Config.fromfile(path))
    return result


def test_both_lead_to_centered_adders(configs):
    for config in configs:
        assert config.custom_hooks[-1].type == 'AnnealingHook'
        assert {hook.type for hook in config.custom_hooks} > {
            'LossScaleHook', 'CheckpointCheckHook'}
        model = build_model(config)
        assert {variant_of(layer) for layer in find_adders(model)} == {
            'awn-centered'}
    assert not model.neck.shortcut and model.backbone.depth == 50


def test_backbone_is_that_of_the_converted_classifier(configs):
    options = re.findall(r'model\.backbone\.conv_cfg\.\w+=\w+', PAGE)
    classifier = Config.fromfile(
        ROOT / 'configs/imagenet/ann-awn-resnet18_8xb32_in1k.py')
    classifier.merge_from_dict({
        key: DictAction._parse_iterable(value)
        for key, value in (option.split('=') for option in options)})
    backbone = build_model(classifier).backbone
    detector = build_model(configs[0])
    detector.backbone.load_state_dict(backbone.state_dict())
    assert {variant_of(layer) for layer in find_adders(backbone)} == {
        'awn-centered'}
    assert configs[0].model.backbone.init_cfg.prefix == 'backbone.'
