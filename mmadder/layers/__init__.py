from .adder_conv2d import AdderConv2d
from .annealing import (
    adder_fraction,
    find_adders,
    require_adders,
    set_adder_fraction,
    warn_before_adders,
)
from .local_gradient_scaling import (
    get_averaging_group,
    get_loss_scale,
    local_gradient_scaling,
    set_averaging_group,
    set_loss_scale,
)
from .weight_norm import AWN, WS, adaptive_weight_norm, weight_standardization

__all__ = [
    'AWN', 'WS', 'AdderConv2d', 'adaptive_weight_norm', 'adder_fraction',
    'find_adders', 'get_averaging_group', 'get_loss_scale',
    'local_gradient_scaling', 'require_adders', 'set_adder_fraction',
    'set_averaging_group', 'set_loss_scale', 'warn_before_adders',
    'weight_standardization'
]
