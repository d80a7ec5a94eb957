"""Inference in one go: maps stay in the kernels' layout between layers.

A fused model calls one operator for each layer, with NCHW maps in between
that each layer packs at its entrance. A plan runs a backbone, and a detector's
neck with it, as one list of steps whose maps lie as the kernels read them.
"""
import copy
import logging
import threading
from collections import OrderedDict
from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmadder.layers import find_adders

from .fusion import (
    FusedAdderConv2d,
    count_writes,
    fuse_adder_bn,
    is_exporting,
    require_eval,
)
from .plan_graph import PlanGraph, trace
from .plan_steps import PlannedSteps, Unplannable

MOST_SIZES = 4  # of inputs, whose plans are kept


def make_plan(model: nn.Module) -> nn.Module:
    """Return a copy of a model that runs its adders by a plan, on the CPU.

    The largest parts whose forward is a function of one tensor are planned,
    such as a backbone; a detector's backbone and neck become one part.
    Planned are adders of one group with norm, shortcut and ReLU, the
    convolution before them, max pooling, and the sums and nearest
    upsampling of feature pyramids. All else runs as it is: heads, modules that
    the plan does not know or that have hooks, and on a GPU, in another dtype
    than float32 or while exporting all of it; ``print(plan)`` lists what
    runs outside. A plan is made for each size of input when it first comes;
    the last few are kept, with their memory; threads that call one take
    turns. Outputs are the fused model's
    up to rounding.

    Args:
        model: in evaluation mode; fused (:func:`fuse_adder_bn`) or not.

    Raises:
        InputError: a module is in training mode, there are no adders, or
            they are partly convolutions still.

    Example:
        >>> plan = make_plan(AdderResNet(18).eval())
        >>> features, = plan(torch.rand(1, 3, 64, 64))
    """
    require_eval(model, 'make_plan')
    if find_adders(model) or not _has_fused(model):
        model = fuse_adder_bn(model)
    else:
        model = copy.deepcopy(model)
    reasons = {}
    model = _placed(model, '', reasons)
    for name, reason in reasons.items():
        print_log(f'make_plan: {name} runs outside of the plan: {reason}',
                  logger='current', level=logging.WARNING)
    return model


class Planned(nn.Module):
    """A module of fused adders that runs by a plan where there can be one.

    Args:
        module: its forward is a function of one tensor.
        graph: of the module.
    """

    def __init__(self, module: nn.Module, graph: PlanGraph):
        super().__init__()
        self.module = module
        self._graph = graph
        # A plan's maps are shared memory: threads take turns.
        self._lock = threading.RLock()
        self._forget()
        super().train(False)

    def forward(self, x: Tensor, *args, **kwargs) -> Any:
        if args or kwargs or not self._can_plan(x):
            return self.module(x, *args, **kwargs)
        with torch.no_grad(), self._lock:
            return self._run(x)

    def _run(self, x):
        if any(tensors.get(name) is not tensor
               or count_writes(tensor) != writes
               for tensors, name, tensor, writes in self._seen):
            self._forget()
        size = tuple(x.shape)
        try:
            if size in self._steps:
                self._steps.move_to_end(size)
                steps = self._steps[size]
                return self.module(x) if steps is None else steps.run(x)
        except Unplannable:  # for this input, so plan anew
            pass
        try:
            steps = PlannedSteps(self.graph, self._packed, x)
            output = steps.first_output
            del steps.first_output
        except Unplannable:
            steps, output = None, self.module(x)
        self._steps[size] = steps
        if len(self._steps) > MOST_SIZES:
            self._steps.popitem(last=False)
        return output

    def _can_plan(self, x):
        return (isinstance(x, Tensor) and x.device.type == 'cpu'
                and x.dtype == torch.float32 and x.dim() == 4
                and not (torch.is_grad_enabled() and x.requires_grad)
                and not torch.is_autocast_enabled('cpu')
                and not is_exporting() and not torch.jit.is_tracing()
                and not any(self._hooks))

    @property
    def graph(self) -> PlanGraph:
        if self._graph is None:
            self._graph = PlanGraph(self.module)
        return self._graph

    def _forget(self):
        """Plan anew, after weights have changed."""
        self._steps = OrderedDict()
        self._packed = {}
        self._seen = [
            (tensors, name, tensor, count_writes(tensor))
            for module in self.module.modules()
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items() if tensor is not None]
        # Of whatever lies in a plan: there they would not be called.
        outside = {self.graph.module_of(node) for node in self.graph.nodes
                   if self.graph.kinds[node] == 'outside'}
        self._hooks = [
            hooks for module in self.module.modules()
            if module not in outside for hooks in
            (module._forward_hooks, module._forward_pre_hooks)]

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._forget()
        return self

    def _load_from_state_dict(self, *args, **kwargs):
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self):  # neither graph nor plans can be copied
        return dict(self.__dict__, _graph=None, _steps=None, _packed=None,
                    _hooks=None, _lock=None, _seen=None)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._lock = threading.RLock()
        self._forget()

    def __repr__(self) -> str:
        kinds = list(self.graph.kinds.values())
        inside = [f'{kinds.count(kind)} {name}' for kind, name in (
            ('stem', 'stem'), ('adder', 'adders'),
            ('max_pool', 'max poolings'), ('add', 'sums')) if kind in kinds]
        outside = ', '.join(self.graph.outside()) or 'nothing'
        return (f'Planned({type(self.module).__name__}: {", ".join(inside)}; '
                f'outside: {outside})')


class _Joined(nn.Sequential):
    """Backbone and neck of a detector."""


def _has_fused(model):
    return any(isinstance(module, FusedAdderConv2d)
               for module in model.modules())


def _placed(module, name, reasons):
    """Return what replaces a module: itself, if only its children change."""
    if not _has_fused(module):
        return module
    reason = 'it is no function of one tensor'
    if isinstance(module, BaseDetector):
        _plan_features(module)
    elif not isinstance(module, BaseModel):
        graph = trace(module)
        if isinstance(graph, PlanGraph):
            return Planned(module, graph)
        reason = graph
    inner = {}
    # Not named_children(), which names a module once that occurs twice.
    for child_name, child in list(module._modules.items()):
        if child is not None and not isinstance(child, Planned):
            setattr(module, child_name, _placed(
                child, f'{name}.{child_name}'.lstrip('.'), inner))
    if any(isinstance(part, Planned) for part in module.modules()):
        reasons.update(inner)
    else:  # said of the whole, not of each part
        reasons[name or type(module).__name__] = reason
    return module


def _plan_features(detector):
    """Plan a detector's backbone and neck as one, if that can be done."""
    if not detector.with_neck:
        return
    joined = _Joined(detector.backbone, detector.neck)
    graph = trace(joined)
    if isinstance(graph, PlanGraph):
        detector.backbone = Planned(joined, graph)
        detector.neck = nn.Identity()
