"""Runtimes that a convolutional network would be taken to, where installed.

Each gets as many threads as torch has, one stream, and its best layout; of a
runtime that is not installed there is no row. requirements/peers.txt has
them all.
"""
import copy
import importlib.util
import io
import os
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

Run = Callable[[], Tensor]


def peers() -> dict[str, Callable[[nn.Module, Tensor], Run]]:
    """{name: maker} of those that can run here.

    A maker takes a network of convolutions in evaluation mode, whose forward
    gives one tensor, and its input; it returns what is timed, a function that
    gives the output.
    """
    found = {}
    if _has('onnxruntime', 'onnx'):
        found['ONNX Runtime'] = onnx_runtime
    if _has('openvino'):
        found['OpenVINO'] = lambda model, x: openvino(model, x, 'f32')
        found['OpenVINO, bfloat16'] = (
            lambda model, x: openvino(model, x, 'bf16'))
    if 'onednn' in torch.backends.quantized.supported_engines:
        found['int8 (torch, onednn)'] = torch_int8
    if _has('openvino', 'nncf'):
        found['int8 (OpenVINO, NNCF)'] = openvino_int8
    return found


def _has(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


def onnx_runtime(model: nn.Module, x: Tensor) -> Run:
    """Exported to ONNX, all optimizations of ONNX Runtime."""
    import onnxruntime
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter is called legacy
        torch.onnx.export(model, (x, ), file, dynamo=False,
                          input_names=['input'])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=['CPUExecutionProvider'])
    inputs = dict(input=x.numpy())
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def openvino(model: nn.Module, x: Tensor, precision: str) -> Run:
    """Converted from PyTorch; precision: hint of OpenVINO, f32 or bf16."""
    return _compiled(_converted(model, x), x, precision)


def openvino_int8(model: nn.Module, x: Tensor) -> Run:
    """Quantized by NNCF, calibrated on the input."""
    import nncf
    data = nncf.Dataset([x.numpy()])
    quantized = nncf.quantize(_converted(model, x), data, subset_size=1)
    return _compiled(quantized, x, 'f32')


def _converted(model, x):
    os.environ.setdefault('OPENVINO_TELEMETRY', '0')
    from openvino import convert_model
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the tracer
        return convert_model(model, example_input=x, input=[tuple(x.shape)])


def _compiled(converted, x, precision):
    from openvino import Core
    network = Core().compile_model(converted, 'CPU', dict(
        INFERENCE_NUM_THREADS=torch.get_num_threads(), NUM_STREAMS=1,
        PERFORMANCE_HINT='LATENCY', INFERENCE_PRECISION_HINT=precision))
    request, inputs = network.create_infer_request(), [x.numpy()]
    return lambda: torch.from_numpy(request.infer(inputs)[0])


def torch_int8(model: nn.Module, x: Tensor) -> Run:
    """torch.ao's static quantization, calibrated on the input."""
    # Without VNNI sums of two products saturate, unless inputs have seven
    # bits, as the observers of x86 give them.
    backend = 'onednn' if torch.cpu._is_vnni_supported() else 'x86'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of its successors
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
        prepared = prepare_fx(
            copy.deepcopy(model), get_default_qconfig_mapping(backend), (x,))
        with torch.no_grad():
            prepared(x)
        torch.backends.quantized.engine = 'onednn'
        quantized = convert_fx(prepared)

    def run():
        with torch.no_grad():
            return quantized(x)
    return run
