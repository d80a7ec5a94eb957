"""Models from configs, without a runner."""
import copy

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn


def build_model(cfg: Config) -> nn.Module:
    """Return the config's model on the CPU, with random weights.

    Args:
        cfg: of MMPretrain or MMDetection; it stays as it is.
    """
    scope = cfg.get('default_scope', 'mmengine')
    cfg = copy.deepcopy(cfg)  # models write into theirs
    if 'data_preprocessor' in cfg:  # as the runner does
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg.model)


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the model in MMDistributedDataParallel or test augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
