"""Models from configs, without a runner."""
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn


def build_model(cfg: Config) -> nn.Module:
    """Return the config's model on the CPU, with random weights.

    Args:
        cfg: of MMPretrain or MMDetection.
    """
    scope = cfg.get('default_scope', 'mmengine')
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:  # as the runner does
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(model)
