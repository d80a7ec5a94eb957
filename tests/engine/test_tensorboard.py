"""The visualizer setting of the README."""
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs' / 'digits'
CHILD = '''_base_ = {base!r}
visualizer = dict(vis_backends=[
    dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
'''


@pytest.mark.parametrize('scope, config', [
    ('mmdet', 'faster-rcnn_ann-awn-r18_ann-awn-fpn_1xb8-8e_digits.py'),
    ('mmpretrain', 'ann-awn-resnet18_1xb32-5e_digits.py')])
def test_curves_reach_tensorboard(tmp_path, scope, config):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )
    child = tmp_path / 'child.py'
    child.write_text(CHILD.format(base=str(CONFIGS / config)))
    cfg = Config.fromfile(child).visualizer
    cfg.update(save_dir=str(tmp_path), name=str(tmp_path))
    with DefaultScope.overwrite_default_scope(scope):
        visualizer = VISUALIZERS.build(cfg)
    visualizer.add_scalars(dict(loss=2., accuracy=.5), step=3)
    visualizer.close()
    events = EventAccumulator(str(tmp_path / 'vis_data'))
    events.Reload()
    event, = events.Scalars('loss')
    assert (event.step, event.value) == (3, 2.)
    assert (tmp_path / 'vis_data' / 'scalars.json').is_file()
