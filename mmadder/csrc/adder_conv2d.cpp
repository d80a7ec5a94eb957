// Schemas of the adder operators and the Python module that carries them.
#include <Python.h>
#include <torch/library.h>

TORCH_LIBRARY(mmadder, m) {
  m.def(
      "adder_conv2d(Tensor input, Tensor weight, int[2] stride, "
      "int[2] padding, int[2] dilation, int groups, str mode, "
      "str input_gradient) -> Tensor");
  m.def(
      "adder_conv2d_input_grad(Tensor grad_output, Tensor input, "
      "Tensor weight, int[2] stride, int[2] padding, int[2] dilation, "
      "int groups, str input_gradient) -> Tensor");
  m.def(
      "adder_conv2d_weight_grad(Tensor grad_output, Tensor input, "
      "Tensor weight, int[2] stride, int[2] padding, int[2] dilation, "
      "int groups) -> Tensor");
}

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1};
  return PyModule_Create(&module);
}
