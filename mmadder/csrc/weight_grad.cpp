// Weight gradient, the same on every device: the l1 distance's full-precision
// surrogate dY/dW = X - W (arXiv:1912.13200, Eq. 5) makes it a convolution's
// weight gradient minus W times the sum of grad_output.
#include <ATen/ATen.h>
#include <c10/util/strides.h>
#include <torch/library.h>
#include <torch/version.h>

#include <mutex>

#include "geometry.h"

namespace mmadder {
namespace {

// Whether cuDNN's convolutions may round to TF32, in the whole process.
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 10
bool tf32_allowed() { return at::globalContext().allowTF32CuDNN(); }
void allow_tf32(bool allow) { at::globalContext().setAllowTF32CuDNN(allow); }
#else  // the older functions raise once a user has set the precision
bool tf32_allowed() {
  return at::globalContext().float32Precision(
             at::Float32Backend::CUDA, at::Float32Op::CONV) ==
      at::Float32Precision::TF32;
}
void allow_tf32(bool allow) {
  at::globalContext().setFloat32Precision(
      at::Float32Backend::CUDA, at::Float32Op::CONV,
      allow ? at::Float32Precision::TF32 : at::Float32Precision::IEEE);
}
#endif

// The two terms nearly cancel, so TF32's ten bits would be a silent error.
// Autograd runs a thread for each GPU: they take turns, or the first one to
// end would give TF32 back to the others. Where the setting was inherited, it
// comes back as the convolutions' own.
class NoTF32 {
 public:
  NoTF32() : lock_(mutex()), allowed_(tf32_allowed()) {
    if (allowed_)
      allow_tf32(false);
  }
  ~NoTF32() {
    if (allowed_)
      allow_tf32(true);
  }
  NoTF32(const NoTF32&) = delete;
  NoTF32& operator=(const NoTF32&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex one;
    return one;
  }

  const std::lock_guard<std::mutex> lock_;
  const bool allowed_;
};

// In NCHW, also by its strides of axes of size 1, of which is_contiguous()
// says nothing and from which others read a layout.
at::Tensor in_nchw(const at::Tensor& tensor) {
  const auto whole = tensor.contiguous();
  return whole.as_strided(
      whole.sizes(), c10::contiguous_strides(whole.sizes()));
}

at::Tensor adder_conv2d_weight_grad(
    const at::Tensor& grad_output, const at::Tensor& input,
    const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups) {
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  check_grad_output("adder_conv2d_weight_grad", grad_output, g);
  if (g.batch == 0)
    return at::zeros(weight.sizes(), weight.options());
  const auto dtype =
      weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto grad = grad_output.to(dtype);
  auto x = input.to(dtype), w = weight.to(dtype);
  // oneDNN writes beyond its memory where windows of one pixel lie apart, and
  // inputs or weights in channels_last (torch 2.11).
  if (g.taps() == 1 && x.is_cpu()) {
    x = in_nchw(x);
    w = in_nchw(w);
  }
  auto grad_weight = input.numel() == 0  // all padding
      ? at::zeros_like(w)
      : std::get<1>(at::convolution_backward(
            grad, x, w, c10::nullopt, stride, padding, dilation,
            /*transposed=*/false, /*output_padding=*/{0, 0}, groups,
            {false, true, false}));
  const auto grad_sum = grad.sum(at::IntArrayRef({0, 2, 3}));
  grad_weight.addcmul_(w, grad_sum.view({-1, 1, 1, 1}), -1);
  return in_nchw(grad_weight.to(weight.scalar_type()));
}

at::Tensor adder_conv2d_weight_grad_cuda(
    const at::Tensor& grad_output, const at::Tensor& input,
    const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups) {
  const NoTF32 guard;
  return adder_conv2d_weight_grad(
      grad_output, input, weight, stride, padding, dilation, groups);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CPU, m) {
  m.impl("adder_conv2d_weight_grad", adder_conv2d_weight_grad);
}
TORCH_LIBRARY_IMPL(mmadder, CUDA, m) {
  m.impl("adder_conv2d_weight_grad", adder_conv2d_weight_grad_cuda);
}

}  // namespace mmadder
