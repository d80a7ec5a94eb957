"""What a plan runs itself, found by tracing a fused module."""
import inspect
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import fx, nn

from .fusion import FusedAdderConv2d, FusedShortcutConv2d, is_plain

ADDERS = (FusedAdderConv2d, FusedShortcutConv2d)
SAME = (nn.Identity, nn.Dropout, DropPath)  # in evaluation mode
ADDITIONS = (operator.add, operator.iadd, torch.add)
IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
BLOCK = 16  # channels in a block of a map
LARGEST_COLUMN_STEP = 2  # between windows, of the kernels
FEWEST_ADDERS = 2  # one alone gains nothing by another layout

# Steps whose results are maps in the kernels' layout; 'done' are those that
# the stem before them does in one.
MAPS = ('stem', 'done', 'adder', 'max_pool', 'add', 'same', 'upsample')


class _Proxy(fx.Proxy):
    """Notes ``a += b`` as what it is; PyTorch's would note ``a + b``."""


def _noted(function):
    def note(self, other):
        return self.tracer.create_proxy(
            'call_function', function, (self, other), {})
    return note


for function in IN_PLACE:
    setattr(_Proxy, f'__{function.__name__}__', _noted(function))


class _Tracer(fx.Tracer):
    """Goes into modules of any package down to what a plan may know."""

    def proxy(self, node):
        return _Proxy(node, self)

    def is_leaf_module(self, module, name):
        return (isinstance(module, FusedAdderConv2d) or not is_plain(module)
                or isinstance(module, SAME)
                or super().is_leaf_module(module, name))


def traced(module: nn.Module) -> fx.Graph:
    """The graph of a fused module's forward.

    Raises:
        ValueError: it cannot be traced; the message says why.
    """
    try:
        return _Tracer().trace(module)
    # Whatever a forward does with a proxy in place of a tensor.
    except Exception as error:
        message = str(error).partition('\n')[0]
        raise ValueError(f'torch.fx cannot trace it: {message}') from error


class PlanGraph:
    """The steps of a module's forward, and which of them a plan knows.

    Args:
        module: fused, its forward a function of one argument.

    Attributes:
        nodes: of torch.fx, in the order of the forward.
        kinds: {node: kind}: one of ``MAPS``, 'shape' of a map, 'outside'.
        stems: {node of a convolution: it and what is done with it}.

    Raises:
        ValueError: the forward cannot be traced; the message says why.
    """

    def __init__(self, module: nn.Module):
        parameters = inspect.signature(module.forward).parameters.values()
        if [p.kind.name for p in parameters] != ['POSITIONAL_OR_KEYWORD']:
            raise ValueError('its forward takes more than one argument')
        self.nodes = list(traced(module).nodes)
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.kinds: dict[fx.Node, str] = {}
        self.stems: dict[fx.Node, list[fx.Node]] = {}
        for node in self.nodes:
            if node not in self.kinds:
                self.kinds[node] = self._kind(node)
        self._leave_out_small_parts()
        self._refuse_changes_in_place()

    def module_of(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it does."""
        return (self.modules[node.target] if node.op == 'call_module'
                else None)

    def is_map(self, node) -> bool:
        """Whether a node's result is a map in the kernels' layout."""
        return isinstance(node, fx.Node) and self.kinds.get(node) in MAPS

    def adders(self) -> list[fx.Node]:
        """Nodes of the adders that a plan runs itself."""
        return [node for node in self.nodes if self.kinds[node] == 'adder']

    def outside(self) -> list[str]:
        """What runs as it is: names of the modules and functions."""
        names = []
        for node in self.nodes:
            if self.kinds[node] != 'outside' or node.op in (
                    'placeholder', 'output', 'get_attr'):
                continue
            module = self.module_of(node)
            names.append(
                f'{node.target} ({type(module).__name__})' if module else
                node.name.rstrip('_0123456789'))
        return list(dict.fromkeys(names))

    # Kinds ------------------------------------------------------------------

    def _kind(self, node):
        if node.op == 'call_module':
            return self._kind_of_module(node, self.module_of(node))
        arguments = list(node.args)
        if _calls(node, operator.getitem) and \
                self.kinds.get(arguments[0]) == 'shape':
            return 'shape'
        if not (arguments and self.is_map(arguments[0])):
            return 'outside'
        if (_calls(node, getattr) and arguments[1] == 'shape'
                or node.target == 'size'):
            return 'shape'
        if (node.target in ADDITIONS or node.target == 'add') \
                and len(arguments) == 2 and not node.kwargs \
                and self.is_map(arguments[1]) \
                and self.kinds[arguments[0]] != 'upsample':
            return 'add'
        if _calls(node, F.interpolate) and self._joins_nearest(node):
            return 'upsample'
        return 'outside'

    def _kind_of_module(self, node, module):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not is_plain(module):
            return 'outside'
        if self._is_adder(node):
            return 'adder'
        if type(module) is nn.Conv2d and self._find_stem(node, module):
            return 'stem'
        if self.is_map(source) and not node.kwargs:
            if _is_pool(module):
                return 'max_pool'
            if isinstance(module, SAME):
                return 'same'
        return 'outside'

    def _is_adder(self, node):
        module = self.module_of(node)
        if type(module) not in ADDERS or not is_plain(module):
            return False
        (_, stride), groups = module.geometry[0], module.geometry[3]
        return (groups == 1 and stride <= LARGEST_COLUMN_STEP
                and module.weight.dtype == torch.float32)

    def _joins_nearest(self, node):
        """Whether it is one side of an addition, its source twice as large.

        An upsampled map has no memory of its own.
        """
        users = list(node.users)
        given = {key: value for key, value in node.kwargs.items()
                 if value is not None and value is not False}
        if len(users) != 1 or len(node.args) != 1 or not (
                given.pop('mode', 'nearest') == 'nearest'
                and given.keys() <= {'size', 'scale_factor'}):
            return False
        other = users[0].args[0] if users[0].args else None
        return ((users[0].target in ADDITIONS or users[0].target == 'add')
                and len(users[0].args) == 2 and not users[0].kwargs
                and users[0].args[1] is node and self.is_map(other))

    def _find_stem(self, node, conv):
        """Mark a convolution, norm, ReLU and max pooling before adders."""
        if self.is_map(node.args[0]) or conv.out_channels % BLOCK or not (
                conv.padding_mode == 'zeros'
                and not isinstance(conv.padding, str)):
            return False
        chain = [node]
        for accepts in (_is_norm, _is_relu, _is_pool):
            users = list(chain[-1].users)
            follower = self.module_of(users[0]) if len(users) == 1 else None
            if follower is not None and is_plain(follower) \
                    and accepts(follower):
                chain.append(users[0])
        if not all(self._is_adder(user) for user in chain[-1].users):
            return False
        self.stems[node] = chain
        for link in chain[1:]:
            self.kinds[link] = 'done'
        return True

    def _refuse_changes_in_place(self):
        """What others read later would be the map as it was before."""
        for node in self.nodes:
            module = self.module_of(node)
            in_place = (
                node.target in IN_PLACE or node.kwargs.get('inplace')
                or node.op == 'call_method' and node.target.endswith('_')
                or self.kinds[node] == 'outside'
                and getattr(module, 'inplace', False))
            if in_place and any(self.is_map(source) and len(source.users) > 1
                                for source in node.all_input_nodes):
                raise ValueError(f'{node.target} changes in place what other '
                                 'layers read')

    def _leave_out_small_parts(self):
        """Maps that lie between few adders are not worth their layout."""
        part = {}
        for node in self.nodes:
            if self.is_map(node):
                joined = [part[source] for source in node.all_input_nodes
                          if source in part]
                group = set().union({node}, *joined)
                for member in group:
                    part[member] = group
        for group in {id(group): group for group in part.values()}.values():
            if sum(self.kinds[n] == 'adder' for n in group) < FEWEST_ADDERS:
                for node in group:
                    self.kinds[node] = 'outside'
                    self.stems.pop(node, None)
                    self._leave_out_shapes(node)

    def _leave_out_shapes(self, node):
        """A map's shape, and all parts of that, if the map is none any more.
        """
        for user in node.users:
            if self.kinds[user] == 'shape':
                self.kinds[user] = 'outside'
                self._leave_out_shapes(user)


def trace(module: nn.Module) -> PlanGraph | str:
    """Return a module's graph, or why there is none."""
    try:
        graph = PlanGraph(module)
    except ValueError as error:
        return str(error)
    return graph if graph.adders() else 'its adders lie apart'


def _calls(node: fx.Node, function: Callable) -> bool:
    return node.op == 'call_function' and node.target is function


def _is_pool(module):
    return (type(module) is nn.MaxPool2d and not module.ceil_mode
            and not module.return_indices
            and module.dilation in (1, (1, 1)))


def _is_norm(module):
    return (isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)
            and module.running_mean is not None)


def _is_relu(module):
    return type(module) is nn.ReLU
