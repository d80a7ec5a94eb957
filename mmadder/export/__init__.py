from .adder_function import AdderNode
from .detector_networks import detector_network
from .export_networks import dense_network
from .integer_export import export_integer, to_integers
from .integer_file import is_integer
from .integer_onnx import export_integer_onnx
from .integer_testing import IntegerPredictor
from .onnx_export import export_onnx
from .onnx_file import OnnxModel, is_onnx
from .onnx_graph import OPSET, Network, to_onnx
from .onnx_parity import Parity
from .onnx_testing import OnnxPredictor

__all__ = [
    'OPSET', 'AdderNode', 'IntegerPredictor', 'Network', 'OnnxModel',
    'OnnxPredictor', 'Parity', 'dense_network', 'detector_network',
    'export_integer', 'export_integer_onnx', 'export_onnx', 'is_integer',
    'is_onnx', 'to_integers', 'to_onnx'
]
