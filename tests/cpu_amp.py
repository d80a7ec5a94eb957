"""MMEngine's mixed-precision wrapper, on the CPU."""
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper


class CpuAmpOptimWrapper(AmpOptimWrapper):
    """AmpOptimWrapper, which accepts no CPU, with a scaler for it."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=65536.)
        self._scale_update_param = None
        self.cast_dtype = None

    optim_context = OptimWrapper.optim_context
