"""Single nodes of our local functions in ONNX Runtime."""
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from mmadder.export.onnx_file import add_metadata

TYPES = dict(float32=1, int64=7, bool=9)


def run_node(functions, kind, inputs, attributes, rank, weights=(),
             arena=True):
    """Run a node whose type is a function.

    Args:
        functions (dict): of texts, all that may be called.
        inputs (dict): arrays by name, in the node's order.
        weights (Iterable): names of those that are constants of the model.
        rank (int): of the output.
    Returns:
        A call without arguments, that runs it once more.
    """
    node = helper.make_node(kind, list(inputs), ['output'], domain='mmadder',
                            **attributes)
    graph = helper.make_graph(
        [node], 'test',
        [helper.make_tensor_value_info(
            name, TYPES[str(array.dtype)],
            [f'{name}_{axis}' for axis in range(array.ndim)])
         for name, array in inputs.items() if name not in weights],
        [helper.make_tensor_value_info(
            'output', 1, [f'out_{axis}' for axis in range(rank)])],
        [numpy_helper.from_array(inputs[name], name) for name in weights])
    model = helper.make_model(
        graph, functions=[onnx.parser.parse_function(text)
                          for text in functions.values()],
        opset_imports=[helper.make_opsetid('', 18),
                       helper.make_opsetid('mmadder', 1)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = start(model, arena)
    feeds = {name: np.ascontiguousarray(array)
             for name, array in inputs.items() if name not in weights}
    return lambda: session.run(None, feeds)[0]


def start(model, arena=True):
    """A session of a model in memory."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options,
        providers=['CPUExecutionProvider'])


def write_file(path, **description):
    """Write a file that doubles pictures of 3x4 pixels."""
    graph = helper.make_graph(
        [helper.make_node('Add', ['images', 'images'], ['logits'])], 'test',
        [helper.make_tensor_value_info('images', 1, ['batch', 3, 3, 4])],
        [helper.make_tensor_value_info('logits', 1, ['batch', 3, 3, 4])])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    add_metadata(model, description)
    path.write_bytes(model.SerializeToString())
    return path
