from .convert import (
    SOURCES,
    convert_checkpoint,
    convert_variant,
    largest_deviation,
    outputs,
    set_weight_norm,
)
from .official import from_official, is_official, official_logits
from .variants import recorded_config, require_connections, variant_of

__all__ = [
    'SOURCES', 'convert_checkpoint', 'convert_variant', 'from_official',
    'is_official', 'largest_deviation', 'official_logits', 'outputs',
    'recorded_config', 'require_connections', 'set_weight_norm', 'variant_of'
]
