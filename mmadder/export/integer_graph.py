"""The layers of a network as the integer network has them, still in float."""
import dataclasses
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from mmadder.errors import InputError
from mmadder.inference import FusedAdderConv2d
from mmadder.inference.fusion import FusedShortcutConv2d
from mmadder.inference.plan_graph import ADDITIONS, SAME, traced

from .onnx_graph import Network

SHAPES = ('size', 'dim')  # methods whose results are no maps
VIEWS = ('view', 'flatten', 'reshape')


@dataclasses.dataclass
class Layer:
    """One step to be.

    Attributes:
        kind: of docs/integer_format.md.
        name: of the map that it writes.
        node: whose value the map is; behind norm and ReLU.
        inputs: names of the maps that it reads; of a sum, two.
        module: adder, convolution, linear layer or pooling.
        norm: batch norm behind a convolution or linear layer.
        relu: ends with one.
        residual: name of a map.
    """
    kind: str
    name: str
    node: fx.Node
    inputs: list[str]
    module: nn.Module | None = None
    norm: _BatchNorm | None = None
    relu: bool = False
    residual: str | None = None
    geometry: dict[str, list[int]] = dataclasses.field(default_factory=dict)


class IntegerGraph:
    """A network's layers in order, found by tracing.

    Args:
        network: fused; pictures to tensors.

    Attributes:
        layers: in order; the picture is the map 'image'.
        outputs: {name of a tensor: map}.

    Raises:
        InputError: something that the integer network has no step for; the
            message names it by its path.
    """

    def __init__(self, network: Network):
        self._network = network
        try:
            self._graph = traced(network)
        except ValueError as error:
            raise InputError(
                f'the model has no integer network: {error}') from error
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._maps: dict[fx.Node, str] = {}
        self._absorbed: set[fx.Node] = set()
        self._shapes: dict[fx.Node, torch.Size] = {}
        self.layers: list[Layer] = []
        self.outputs: dict[str, str] = {}
        for node in self._graph.nodes:
            if node not in self._absorbed:
                self._read(node, network)

    def run(self, images: Tensor,
            record: Callable[[str, Tensor], None]) -> None:
        """Run the network in float; record gets each map's name and value."""
        names = {layer.node: layer.name for layer in self.layers}

        def see(node, value):
            if node in names:
                record(names[node], value)

        self._watch((images, ), see)

    def _watch(self, inputs, see):
        """Run the network; ``see`` gets every node and its value."""
        class Watcher(fx.Interpreter):

            def run_node(self, node):
                value = super().run_node(node)
                see(node, value)
                return value

        Watcher(self._network, graph=self._graph).run(*inputs)

    # Reading the graph ------------------------------------------------------

    def _read(self, node, network):
        if node.op == 'placeholder':
            self._maps[node] = 'image'
        elif node.op == 'output':
            names = [self._map(source, node) for source in node.args[0]]
            self.outputs = dict(zip(network.output_names, names))
        elif node.op == 'call_module':
            self._read_module(node, self._modules[node.target])
        elif not self._read_function(node):
            self._refuse(node)

    def _read_module(self, node, module):
        if isinstance(module, SAME):
            self._maps[node] = self._map(node.args[0], node)
        elif type(module) in (FusedAdderConv2d, FusedShortcutConv2d):
            self._add_adder(node, module)
        elif type(module) in (nn.Conv2d, nn.Linear):
            self._add_convolution(node, module)
        elif type(module) is nn.MaxPool2d:
            self._add_pool(node, module.kernel_size, module.stride,
                           module.padding, module.dilation, module.ceil_mode)
        elif type(module) is nn.AdaptiveAvgPool2d and \
                module.output_size in (1, (1, 1)):
            self._add(node, 'average', [node.args[0]])
        else:
            self._refuse(node)

    def _read_function(self, node):
        """Whether the network has a step for it, or needs none."""
        source = node.args[0] if node.args else None
        target = node.target
        if node.op == 'call_method' and target in SHAPES or \
                target in (getattr, operator.getitem) and self._is_shape(node):
            return True
        if (target in VIEWS or target is torch.flatten) and \
                self._is_vector(source):
            self._maps[node] = self._map(source, node)
        elif (target in ADDITIONS or target == 'add') \
                and len(node.args) == 2 and not node.kwargs:
            self._add_sum(node)
        elif target is F.max_pool2d or target is torch.max_pool2d:
            self._add_pool(node, **_pool_arguments(node))
        elif target is F.adaptive_avg_pool2d and node.args[1] in (1, (1, 1)):
            self._add(node, 'average', [source])
        elif target is F.interpolate:
            return self._is_nearest(node)  # its sum reads it
        else:
            return False
        return True

    def _is_shape(self, node):
        source = node.args[0]
        if node.target is getattr:
            return node.args[1] == 'shape'
        return source.op == 'call_method' and source.target in SHAPES or \
            source.target is getattr

    def _is_vector(self, source):
        name = self._maps.get(source)
        return any(layer.name == name and layer.kind == 'average'
                   for layer in self.layers)

    def _is_nearest(self, node):
        given = {key: value for key, value in node.kwargs.items()
                 if value is not None and value is not False}
        return (given.get('mode', 'nearest') == 'nearest'
                and len(node.users) == 1
                and next(iter(node.users)).target in (*ADDITIONS, 'add'))

    def _add(self, node, kind, sources, module=None, **fields):
        """Add a layer, and the norm and ReLU that follow it."""
        inputs = [self._map(source, node) for source in sources]
        if kind != 'convolution' and 'image' in inputs:
            self._refuse(node)
        base = str(node.target).removeprefix('model.') \
            if node.op == 'call_module' else node.name
        names = {layer.name for layer in self.layers}
        name, number = base, 1
        while name in names:
            name, number = f'{base}.{number}', number + 1
        layer = Layer(kind, name, node, inputs, module, **fields)
        if kind == 'convolution':
            norm = self._follower(layer.node, self._is_norm)
            if norm is not None:
                layer.node, layer.norm = norm, self._modules[norm.target]
        if kind in ('convolution', 'sum'):
            relu = self._follower(layer.node, self._is_relu)
            if relu is not None:
                layer.node, layer.relu = relu, True
        self._maps[node] = self._maps[layer.node] = layer.name
        self.layers.append(layer)

    def _add_adder(self, node, module):
        source, residual = (*node.args, None, None)[:2]
        residual = node.kwargs.get('residual', residual)
        if type(module) is FusedShortcutConv2d:
            residual = source
        stride, padding, dilation, groups = module.geometry
        if groups != 1:
            self._refuse(node, f' of {groups} groups')
        self._add(
            node, 'adder', [source], module, relu=module.relu,
            residual=None if residual is None else self._map(residual, node),
            geometry=_geometry(stride, padding, dilation))

    def _add_convolution(self, node, module):
        if type(module) is nn.Linear:
            if not self._is_vector(node.args[0]):
                self._refuse(node, ' not behind a global average')
            geometry = _geometry(1, 0, 1)
        else:
            if module.groups != 1 or module.padding_mode != 'zeros' or \
                    isinstance(module.padding, str):
                self._refuse(node, ' with groups or a padding by name')
            geometry = _geometry(module.stride, module.padding,
                                 module.dilation)
        self._add(node, 'convolution', [node.args[0]], module,
                  geometry=geometry)

    def _add_pool(self, node, kernel_size, stride=None, padding=0,
                  dilation=1, ceil_mode=False, return_indices=False):
        if _pair(dilation) != (1, 1) or ceil_mode or return_indices:
            self._refuse(node, ' with dilation, indices or ceil_mode')
        self._add(node, 'max_pool', [node.args[0]], geometry=dict(
            kernel=list(_pair(kernel_size)),
            stride=list(_pair(stride if stride is not None else kernel_size)),
            padding=list(_pair(padding))))

    def _add_sum(self, node):
        left, right = node.args
        if not isinstance(right, fx.Node) or not isinstance(left, fx.Node) \
                or left.target is F.interpolate:
            self._refuse(node)
        if node.target is operator.iadd and self._is_read_beside(left, node):
            self._refuse(node, ' that changes in place what others read')
        if right.target is F.interpolate:
            right = right.args[0]
        elif self._shape(left) != self._shape(node):
            left, right = right, left  # the first is not repeated
        if self._shape(left) != self._shape(node):
            self._refuse(node, ' of maps of which none has its size')
        self._add(node, 'sum', [left, right])

    def _is_read_beside(self, node, reader):
        """Whether another node reads the map of a node, by any name."""
        name = self._maps.get(node)
        return any(user is not reader and user not in self._absorbed
                   and self._maps.get(user) != name
                   for source, found in self._maps.items() if found == name
                   for user in source.users)

    def _shape(self, node):
        """Of a node's value, for a picture of 256x256."""
        if not self._shapes:
            with torch.no_grad():
                self._watch(
                    self._network.example((256, 256)),
                    lambda node, value: self._shapes.update(
                        {node: getattr(value, 'shape', None)}))
        return self._shapes[node]

    def _follower(self, node, accepts):
        """The only user of a node, if it can be part of the same step."""
        users = list(node.users)
        if len(users) == 1 and accepts(users[0]):
            self._absorbed.add(users[0])
            return users[0]
        return None

    def _is_norm(self, node):
        module = self._modules.get(node.target) \
            if node.op == 'call_module' else None
        return isinstance(module, _BatchNorm) and \
            module.running_mean is not None

    def _is_relu(self, node):
        return (node.op == 'call_module'
                and type(self._modules[node.target]) is nn.ReLU
                or node.target in (F.relu, torch.relu, 'relu', 'relu_'))

    def _map(self, node, reader):
        if node not in self._maps:
            self._refuse(reader)
        return self._maps[node]

    def _refuse(self, node, what=''):
        if node.op == 'call_module':
            module = self._modules[node.target]
            found = f'{node.target} ({type(module).__name__}{what})'
        else:
            name = getattr(node.target, '__name__', node.target)
            found = f'{name}{what}'
        raise InputError(
            f'the integer network has no step for {found}: it knows adders, '
            'convolutions and linear layers with batch norm and ReLU, max '
            'pooling, global averages, and sums of maps')


def _geometry(stride, padding, dilation) -> dict[str, list[int]]:
    return dict(stride=list(_pair(stride)), padding=list(_pair(padding)),
                dilation=list(_pair(dilation)))


def _pool_arguments(node) -> dict:
    names = ('kernel_size', 'stride', 'padding', 'dilation', 'ceil_mode',
             'return_indices')
    return {**dict(zip(names, node.args[1:])), **node.kwargs}


