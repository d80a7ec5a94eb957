// Weight gradient, the same on every device: the l1 distance's full-precision
// surrogate dY/dW = X - W (arXiv:1912.13200, Eq. 5) makes it a convolution's
// weight gradient minus W times the sum of grad_output.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "geometry.h"

namespace mmadder {
namespace {

// The two terms nearly cancel, so TF32's ten bits would be a silent error.
class NoTF32 {
 public:
  NoTF32() : allowed_(at::globalContext().allowTF32CuDNN()) {
    at::globalContext().setAllowTF32CuDNN(false);
  }
  ~NoTF32() { at::globalContext().setAllowTF32CuDNN(allowed_); }
  NoTF32(const NoTF32&) = delete;
  NoTF32& operator=(const NoTF32&) = delete;

 private:
  const bool allowed_;
};

at::Tensor adder_conv2d_weight_grad(
    const at::Tensor& grad_output, const at::Tensor& input,
    const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups) {
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  TORCH_CHECK_VALUE(
      grad_output.sizes() ==
          at::IntArrayRef({g.batch, g.out_channels, g.out_h, g.out_w}),
      "adder_conv2d_weight_grad: grad_output has shape ", grad_output.sizes(),
      ", expected [", g.batch, ", ", g.out_channels, ", ", g.out_h, ", ",
      g.out_w, "]");
  if (g.batch == 0)
    return at::zeros_like(weight);
  const auto dtype =
      weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto grad = grad_output.to(dtype), w = weight.to(dtype);
  const NoTF32 guard;
  auto grad_weight = input.numel() == 0  // all padding
      ? at::zeros_like(w)
      : std::get<1>(at::convolution_backward(
            grad, input.to(dtype), w, c10::nullopt, stride, padding, dilation,
            /*transposed=*/false, /*output_padding=*/{0, 0}, groups,
            {false, true, false}));
  const auto grad_sum = grad.sum(at::IntArrayRef({0, 2, 3}));
  return grad_weight.addcmul_(w, grad_sum.view({-1, 1, 1, 1}), -1)
      .to(weight.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CPU, m) {
  m.impl("adder_conv2d_weight_grad", adder_conv2d_weight_grad);
}
TORCH_LIBRARY_IMPL(mmadder, CUDA, m) {
  m.impl("adder_conv2d_weight_grad", adder_conv2d_weight_grad);
}

}  // namespace mmadder
