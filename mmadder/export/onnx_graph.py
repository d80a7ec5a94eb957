"""From a network of PyTorch to an ONNX model in memory."""
import ast
import contextlib
import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmadder.errors import InputError
from mmadder.inference import FusedAdderConv2d
from mmadder.layers import AdderConv2d, require_adders

from .adder_function import DOMAIN, VERSION, AdderNode, adder_functions
from .nms_function import nms_functions
from .packages import require_packages

if TYPE_CHECKING:
    import onnx

OPSET = 18  # the first whose reductions all take their axes as input
NEWEST_OPSET = 23  # of onnx 1.23's operators that the exporter writes
# To trace with: no map of it has a side of one pixel, which would be taken for
# a constant, and height and width differ.
ANY_SIZE = 512, 768
DIMENSIONS = ('batch', None, 'height', 'width')  # of a picture, by axis
TRACE = 'pkg.torch.onnx.name_scopes'


class Network(nn.Module):
    """What is exported: tensors in, tensors out, both with names.

    Attributes:
        input_names: of ``forward``'s arguments.
        output_names: of the tensors in the tuple that it returns; known once
            it has run.
    """
    input_names: tuple[str, ...] = ('images', )
    output_names: tuple[str, ...] = ()

    def example(self, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Inputs to trace with: two pictures of (height, width)."""
        return torch.zeros(2, 3, *size),


def to_onnx(network: Network, size: tuple[int, int], *,
            dynamic_size: bool = False,
            opset: int = OPSET) -> 'onnx.ModelProto':
    """Trace a network, and write each adder as a node with a function.

    Args:
        network: in evaluation mode, all of it; it stays as it is.
        size: height and width of the pictures.
        dynamic_size: height and width may be others, as the batch may.
        opset: version of ONNX's operators, OPSET or later.
    Returns:
        A checked model in float32. Nodes have the paths of their modules as
        names.
    Raises:
        InputError: a package is missing, the opset is too old, the network is
            not ready (training mode, on its way from convolutions, fused), or
            one of its modules cannot be exported; the message names it.
    """
    require_packages()
    require_opset(opset)
    network = with_adder_nodes(network)
    program = _trace(network, network.example(
        ANY_SIZE if dynamic_size else size), dynamic_size)
    model = _translate(program, network, opset)
    _name_dimensions(model)
    _clean(model)
    _add_functions(model, opset)
    import onnx
    onnx.checker.check_model(model, full_check=True)
    return model


def with_adder_nodes(network: nn.Module) -> nn.Module:
    """Return a copy whose adders are :class:`AdderNode`, if it is ready."""
    for name, module in network.named_modules():
        if module.training and module is not network:
            raise InputError(
                f'export: {name} ({type(module).__name__}) is in training '
                'mode, in which norms use the batch; call model.eval() first')
        if isinstance(module, FusedAdderConv2d):
            raise InputError(
                f'export: {name} is a fused adder; export the model from '
                'before fuse_adder_bn: a runtime fuses what it can itself')
        if isinstance(module, AdderConv2d) and \
                type(module).forward is not AdderConv2d.forward:
            raise InputError(
                f'export: {name} ({type(module).__name__}) computes '
                'something else than AdderConv2d, and cannot be exported')
    require_adders(network, 'export')
    network = copy.deepcopy(network)
    nodes = {}  # a layer may occur twice
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, AdderConv2d):
                if child not in nodes:
                    nodes[child] = AdderNode(child)
                parent._modules[name] = nodes[child]
    return network.requires_grad_(False).eval()


def require_opset(opset: int) -> None:
    """Raise InputError unless the adders can be written, and were tested."""
    if not OPSET <= opset <= NEWEST_OPSET:
        raise InputError(
            f'opset {opset} is too {"old" if opset < OPSET else "new"}: the '
            f'adders are written with operators of opset {OPSET}, and '
            f'{NEWEST_OPSET} is the newest that is tested')


# ------------------------------------------------------------------ tracing --


def _trace(network, inputs, dynamic_size):
    """An exported program; a failure names the innermost module."""
    axes = {name: dict.fromkeys(range(1), torch.export.Dim.AUTO)
            for name in network.input_names}
    if dynamic_size:
        axes['images'].update(dict.fromkeys((2, 3), torch.export.Dim.AUTO))
    with _module_in_errors(network), _quiet(), torch.no_grad():
        program = torch.export.export(
            network, inputs, dynamic_shapes=tuple(
                axes[name] for name in network.input_names), strict=False)
    images = next(node for node in program.graph.nodes
                  if node.op == 'placeholder' and node.name == 'images')
    for axis in axes['images']:
        size = str(images.meta['val'].shape[axis])
        if size.isdecimal():
            raise InputError(
                f'export: the model fixes the {DIMENSIONS[axis]} of the '
                f'pictures to {size}' + ('; leave --dynamic-size out'
                                         if axis else ''))
    return program


@contextlib.contextmanager
def _module_in_errors(network) -> Iterator[None]:
    """Turn what goes wrong inside a module into an InputError with its path.
    """
    names = {module: name for name, module in network.named_modules()}
    running = []

    def enter(module, inputs):
        running.append(module)

    def leave(module, inputs, output):
        running.pop()

    handles = [handle for module in names for handle in (
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave))]
    try:
        yield
    except Exception as error:  # whatever a module may do
        if not running or isinstance(error, InputError):
            raise
        raise InputError(_cannot(names[running[-1]], running[-1], error)
                         ) from error
    finally:
        for handle in handles:
            handle.remove()


def _cannot(name, module, error):
    reason = next((line for line in str(error).splitlines() if line.strip()),
                  type(error).__name__)
    return (f'export: {name or "the network"} ({type(module).__name__}) '
            f'cannot be exported: {reason.strip()}')


@contextlib.contextmanager
def _quiet():
    """Without what the exporter says about itself and other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _translate(program, network, opset):
    """ONNX of a traced program; an operator without translation is named."""
    try:
        with _quiet():
            return torch.onnx.export(
                program, dynamo=True, opset_version=opset, verbose=False,
                input_names=list(network.input_names),
                output_names=list(network.output_names)).model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(_untranslated(program, network, error)) from error


def _untranslated(program, network, error):
    reasons = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        reasons.append(str(error))
    text = '\n'.join(reasons)
    for node in program.graph.nodes:
        if node.op == 'call_function' and str(node.target) in text and \
                re.search(rf'%{re.escape(node.name)}\b', text):
            stack = list((node.meta.get('nn_module_stack') or {}).values())
            name = stack[-1][0] if stack else ''
            module = network.get_submodule(name)
            return _cannot(name, module, ValueError(
                f'ONNX has no operator for {node.target}'))
    return f'export: {reasons[-1].strip().splitlines()[0]}'


# ------------------------------------------------------------------ tidying --


def _name_dimensions(model):
    """Call the free dimensions of the pictures by their names."""
    images = model.graph.input[0].type.tensor_type.shape
    names = {}
    for dimension, name in zip(images.dim, DIMENSIONS):
        if dimension.dim_param:  # equal ones may share a symbol
            names.setdefault(dimension.dim_param, name)
    values = [*model.graph.input, *model.graph.output,
              *model.graph.value_info]
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = re.sub(
                    r'[A-Za-z_]\w*',
                    lambda found: names.get(found[0], found[0]),
                    dimension.dim_param)


def _clean(model):
    """Name nodes by their modules, and drop the traces of the exporter.

    Those are a third of the file, and tell where its maker's files lie.
    """
    counts = {}
    for node in model.graph.node:
        path = _module_path(node)
        if path is not None:
            counts[path] = counts.get(path, 0) + 1
            node.name = path if counts[path] == 1 else \
                f'{path}/{node.op_type}_{counts[path]}'
        del node.metadata_props[:]
    for part in (*model.graph.input, *model.graph.output,
                 *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    del model.graph.metadata_props[:]


def _module_path(node):
    scopes = {entry.key: entry.value for entry in node.metadata_props}
    if TRACE not in scopes:
        return None
    # The network, its modules from outside in, and the operation.
    *modules, _ = ast.literal_eval(scopes[TRACE])
    return modules[-1] if modules and modules[-1] else None


def _add_functions(model, opset):
    """Add the local functions that the nodes of the graph call."""
    import onnx
    texts = {**adder_functions(opset), **nms_functions(opset)}
    needed = {node.op_type for node in model.graph.node
              if node.domain == DOMAIN}
    found = {}
    for name, text in reversed(texts.items()):  # callers before callees
        if name in needed:
            found[name] = onnx.parser.parse_function(text)
            needed |= {node.op_type for node in found[name].node
                       if node.domain == DOMAIN}
    model.functions.extend(reversed(found.values()))
    if found and DOMAIN not in {entry.domain
                                for entry in model.opset_import}:
        model.opset_import.add(domain=DOMAIN, version=VERSION)


def node_names(model: 'onnx.ModelProto', kinds: Sequence[str]) -> list[str]:
    """Names of the nodes of some types, in the order of the graph."""
    return [node.name for node in model.graph.node if node.op_type in kinds]
