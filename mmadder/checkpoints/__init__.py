from .convert import SOURCES, convert_checkpoint, largest_deviation, outputs
from .official import from_official, is_official, official_logits
from .variants import variant_of
from .weight_norms import convert_variant, set_weight_norm

__all__ = [
    'SOURCES', 'convert_checkpoint', 'convert_variant', 'from_official',
    'is_official', 'largest_deviation', 'official_logits', 'outputs',
    'set_weight_norm', 'variant_of'
]
