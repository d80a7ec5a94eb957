"""A plan for one size of input: native steps, and what lies between them."""
import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair

from mmadder.ops import pack_weight
from mmadder.ops.adder_conv2d import output_size

from .fusion import FusedShortcutConv2d, folded_convolution
from .plan_graph import PlanGraph


class Unplannable(Exception):
    """Sizes do not meet as the steps need them."""


class Map(NamedTuple):
    """A map of the native plan."""
    number: int
    size: tuple[int, ...]  # (N, C, H, W)
    border: tuple[int, int]


class Upsampled(NamedTuple):
    """A map seen at nearest rows and columns."""
    source: Map
    size: tuple[int, ...]
    rows: list[int]
    columns: list[int]


class Native(NamedTuple):
    """Steps of the native plan, run in one call."""
    first: int
    last: int
    reads: list[fx.Node]
    writes: list[fx.Node]


class PlannedSteps:
    """Steps for one size of input, found while they run for the first time.

    Args:
        graph: of the module.
        packed: {name of an adder: packed weight}, shared by all sizes.
        x: the first input.

    Attributes:
        first_output: of ``x``, to be taken away.

    Raises:
        Unplannable: the module must run as it is.
    """

    def __init__(self, graph: PlanGraph, packed: dict[str, Tensor],
                 x: Tensor):
        self.graph, self.packed = graph, packed
        self.native = torch.classes.mmadder.Plan()
        self.stages: list[Native | fx.Node] = []
        self.shapes: dict[fx.Node, torch.Size] = {}  # of results outside
        self.constants: dict[fx.Node, Any] = {}  # sizes of maps
        self._maps: dict[fx.Node, Map | Upsampled] = {}
        self._values: dict[fx.Node, Any] = {}
        self._users = {node: len(node.users) for node in graph.nodes}
        self._free: dict[tuple, list[Map]] = {}
        self._begin, self._reads, self._writes = 0, [], []
        for node in graph.nodes:
            self._plan(node, x)
        del self._values, self._maps, self._users, self._free

    def run(self, x: Tensor) -> Any:
        """Return what the module returns.

        Raises:
            Unplannable: a step outside gave another size than before.
        """
        values = {**self.constants, self.graph.nodes[0]: x}
        for stage in self.stages:
            if isinstance(stage, Native):
                self._run_native(stage, values)
                continue
            value = self._run_outside(stage, values)
            if getattr(value, 'shape', None) != self.shapes.get(stage):
                raise Unplannable
            values[stage] = value
        return values[self.graph.nodes[-1]]

    def _run_native(self, stage, values):
        outputs = self.native.run(
            [values[node] for node in stage.reads], stage.first, stage.last)
        values.update(zip(stage.writes, outputs))

    def _run_outside(self, node, values):
        """Call what is not of the plan, as torch.fx's interpreter does."""
        def value(argument):
            return fx.node.map_arg(argument, values.__getitem__)

        args, kwargs = value(node.args), value(node.kwargs)
        if node.op == 'output':
            return args[0]
        if node.op == 'call_module':
            return self.graph.modules[node.target](*args, **kwargs)
        if node.op == 'call_function':
            return node.target(*args, **kwargs)
        if node.op == 'call_method':
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return operator.attrgetter(node.target)(self.graph.modules[''])

    # Planning ---------------------------------------------------------------

    def _plan(self, node, x):
        kind = self.graph.kinds[node]
        if node.op == 'placeholder':
            self._values[node] = x
        elif kind == 'outside':
            self._plan_outside(node)
        elif kind != 'done':
            getattr(self, f'_plan_{kind}')(node)
        if node.op == 'output':
            self.first_output = self._values[node]
        for source in node.all_input_nodes:
            self._done_with(source)

    def _done_with(self, source):
        self._users[source] -= 1
        if not self._users[source]:
            self._release(source)

    def _plan_outside(self, node):
        for source in node.all_input_nodes:
            if source in self._maps and source not in self._values \
                    and source not in self._writes:
                self.native.write(self._map(source).number)
                self._writes.append(source)
        if self._writes:
            self._flush()
        value = self._run_outside(node, self._values)
        self._values[node] = value
        self.stages.append(node)
        if isinstance(value, Tensor):
            self.shapes[node] = value.shape

    def _flush(self):
        """Run the steps that are planned so far."""
        stage = Native(self._begin, self.native.size(), self._reads,
                       self._writes)
        self._begin, self._reads, self._writes = stage.last, [], []
        self._run_native(stage, self._values)
        self.stages.append(stage)

    def _plan_stem(self, node):
        chain = self.graph.stems[node]
        conv, *others = [self.graph.module_of(link) for link in chain]
        weight, bias, relu, pool = conv.weight, conv.bias, False, _ONE
        for module in others:
            if type(module) is nn.ReLU:
                relu = True
            elif type(module) is nn.MaxPool2d:
                pool = _window(module)
            else:
                weight, bias = (value.float() for value in
                                folded_convolution(conv, module))
        x = self._values[node.args[0]]
        geometry = [list(_pair(value)) for value in (
            conv.stride, conv.padding, conv.dilation)]
        size = output_size(x.shape, weight.shape, *geometry)
        target = self._new_map(chain[-1], _pooled_size(size, pool))
        self.native.stem(
            list(x.shape), weight.detach(),
            None if bias is None else bias.detach(), *geometry, conv.groups,
            relu, pool, target.number)
        self._reads.append(node.args[0])

    def _plan_adder(self, node):
        layer = self.graph.module_of(node)
        source, residual = (*node.args, None, None)[:2]
        residual = node.kwargs.get('residual', residual)
        if type(layer) is FusedShortcutConv2d:
            residual = source
        source = self._read_map(source)
        shortcut = -1 if residual is None else self._read_map(residual).number
        stride, padding, dilation, _ = map(list, (
            _pair(value) for value in layer.geometry))
        size = output_size(
            source.size, layer.weight.shape, stride, padding, dilation)
        target = self._new_map(node, size)
        if node.target not in self.packed:
            self.packed[node.target] = pack_weight(
                layer.weight, shifted=False)
        self.native.adder(
            source.number, shortcut, target.number, list(layer.weight.shape),
            self.packed[node.target], layer.mean, layer.scale, layer.bias,
            layer.relu, stride, padding, dilation, layer.mode, layer.center)

    def _plan_max_pool(self, node):
        source = self._map(node.args[0])
        pool = _window(self.graph.module_of(node))
        target = self._new_map(node, _pooled_size(source.size, pool))
        self.native.max_pool(source.number, pool, target.number)

    def _plan_add(self, node):
        left, right = (self._maps[source] for source in node.args)
        if not isinstance(right, Upsampled):
            right = Upsampled(right, right.size, *(
                list(range(extent)) for extent in right.size[2:]))
        if left.size != right.size:
            raise Unplannable
        target = self._new_map(node, left.size)
        self.native.add(left.number, right.source.number, right.rows,
                        right.columns, target.number)

    def _plan_upsample(self, node):
        source = self._map(node.args[0])
        kwargs = fx.node.map_arg(node.kwargs, self._values.__getitem__)
        # The function itself says which row and column it takes.
        rows, columns = (
            torch.arange(extent, dtype=torch.float32) for extent in
            source.size[2:])
        seen = [F.interpolate(grid.expand(1, 1, *source.size[2:]), **kwargs)
                for grid in (rows.view(-1, 1), columns)]
        self._maps[node] = Upsampled(
            source, (*source.size[:2], *seen[0].shape[2:]),
            seen[0][0, 0, :, 0].long().tolist(),
            seen[1][0, 0, 0, :].long().tolist())
        # The addition reads the source.
        self._users[node.args[0]] += 1

    def _plan_same(self, node):
        self._maps[node] = self._maps[node.args[0]]

    def _plan_shape(self, node):
        if node.args[0] in self.constants:  # a part of it
            value = self._run_outside(node, self.constants)
        else:
            value = torch.Size(self._maps[node.args[0]].size)
            if node.op == 'call_method' and len(node.args) > 1:
                value = value[node.args[1]]
        self.constants[node] = self._values[node] = value

    def _map(self, node):
        found = self._maps[node]
        if isinstance(found, Upsampled):
            raise Unplannable
        return found

    def _read_map(self, node):
        """A node's map, taken from its tensor if there is none yet."""
        if node not in self._maps:
            x = self._values[node]
            if x.dim() != 4 or x.dtype != torch.float32:
                raise Unplannable
            target = self._new_map(node, tuple(x.shape))
            self.native.read(target.number)
            self._reads.append(node)
        return self._map(node)

    def _new_map(self, node, size):
        """A map with the border that the node's users need."""
        paddings = [self.graph.module_of(user).geometry[1]
                    for user in self._readers(node)]
        border = tuple(max((p[i] for p in paddings), default=0)
                       for i in (0, 1))
        kept = self._free.get((size, border))
        found = kept.pop() if kept else Map(
            self.native.map(list(size), list(border)), size, border)
        self._maps[node] = found
        return found

    def _readers(self, node):
        """Adders that read a node's map."""
        for user in node.users:
            if self.graph.kinds[user] == 'adder':
                yield user
            elif self.graph.kinds[user] == 'same':
                yield from self._readers(user)

    def _release(self, node):
        """Give a map's memory to later steps of the same sizes."""
        found = self._maps.get(node)
        if isinstance(found, Upsampled):
            self._done_with(node.args[0])
        elif isinstance(found, Map) and self.graph.kinds[node] != 'same' \
                and not any(self.graph.kinds[user] == 'same'
                            for user in node.users):
            self._free.setdefault((found.size, found.border), []).append(
                found)


_ONE = [1, 1, 1, 1, 0, 0]  # a pooling that is none


def _window(pool):
    """Kernel, stride and padding, each (h, w)."""
    return [*_pair(pool.kernel_size), *_pair(pool.stride),
            *_pair(pool.padding)]


def _pooled_size(size, pool):
    return (*size[:2], *((extent + 2 * pool[4 + i] - pool[i])
                         // pool[2 + i] + 1
                         for i, extent in enumerate(size[2:])))
