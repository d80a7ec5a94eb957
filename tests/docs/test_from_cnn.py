"""The configs of docs/from_cnn.md, which has no data to run with."""
import re

from documented_commands import ROOT
from mmengine.config import Config

from mmadder.checkpoints import variant_of
from mmadder.layers import find_adders
from mmadder.models import build_model

PAGE = (ROOT / 'docs/from_cnn.md').read_text()


def build_centered(config):
    """Build a model, all of whose adders begin as convolutions."""
    assert config.custom_hooks[-1].type == 'AnnealingHook'
    assert {hook.type for hook in config.custom_hooks} > {
        'LossScaleHook', 'CheckpointCheckHook'}
    model = build_model(config)
    assert {variant_of(layer) for layer in find_adders(model).values()} == {
        'awn-centered'}
    return model


def test_whole_detector(tmp_path):
    text, = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    path = tmp_path / 'config.py'
    path.write_text(text.replace("'configs/", f"'{ROOT}/configs/"))
    model = build_centered(Config.fromfile(path))
    assert not model.neck.shortcut and model.backbone.depth == 50


def test_backbone_is_that_of_the_converted_classifier():
    convert, train = re.findall(r'configs/\S+centered\S+\.py', PAGE)[:2]
    out = re.search(r'work_dirs/\w+\.pth', PAGE)[0]
    detector = Config.fromfile(ROOT / train)
    assert detector.model.backbone.init_cfg == dict(
        type='Pretrained', prefix='backbone.', checkpoint=out)
    backbone = build_centered(Config.fromfile(ROOT / convert)).backbone
    build_centered(detector).backbone.load_state_dict(backbone.state_dict())
