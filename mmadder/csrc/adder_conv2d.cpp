// Schemas of the adder operators and the Python module that carries them.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(mmadder, m) {
  m.def(
      "adder_conv2d(Tensor input, Tensor weight, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, str mode, "
      "str input_gradient, bool center=False) -> Tensor");
  m.def(
      "adder_conv2d_input_grad(Tensor grad_output, Tensor input, "
      "Tensor weight, int[2] stride, int[2] padding, int[2] dilation, "
      "int groups, str input_gradient) -> Tensor");
  m.def(
      "adder_conv2d_weight_grad(Tensor grad_output, Tensor input, "
      "Tensor weight, int[2] stride, int[2] padding, int[2] dilation, "
      "int groups) -> Tensor");
  m.def(
      "adder_conv2d_output_size(int[] input, int[] weight, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, bool center) -> int[]");
  // Inference: weights in the order of the kernels, and
  // relu((adder_conv2d - mean) * scale + bias + residual), of the centered
  // adder_conv2d with center.
  m.def(
      "adder_conv2d_pack_weight(Tensor weight, int groups, "
      "bool shifted=True) -> Tensor");
  m.def(
      "adder_conv2d_packed_size(int[] weight, int groups, bool codes, "
      "bool on_gpu) -> int");
  m.def(
      "adder_conv2d_fused(Tensor input, Tensor weight, Tensor packed_weight, "
      "Tensor mean, Tensor scale, Tensor bias, Tensor? residual, bool relu, "
      "int[2] stride, int[2] padding, int[2] dilation, int groups, "
      "str mode, bool center=False) -> Tensor");
  // The same with 8-bit codes: uint8 weight, uint8 or float32 input, distance
  // code_scale * sum |input_code - weight_code|.
  m.def(
      "adder_conv2d_int8(Tensor input, Tensor weight, Tensor packed_weight, "
      "float code_scale, int zero_point, Tensor mean, Tensor scale, "
      "Tensor bias, Tensor? residual, bool relu, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, bool center=False) -> "
      "Tensor");
  // Of an IntegerPlan's convolutions: int8 to the order of the kernels.
  m.def("conv2d_int8_pack_weight(Tensor weight, int[2] dilation) -> Tensor");
}

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1};
  return PyModule_Create(&module);
}
