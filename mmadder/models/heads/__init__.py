from .bn_logits_head import BNLogitsHead

__all__ = ['BNLogitsHead']
