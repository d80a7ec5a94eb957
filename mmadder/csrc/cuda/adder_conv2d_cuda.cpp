// CUDA operators: memory checks, allocation, scratch, registration. c10's
// CUDA headers only, since ATen's want those of cuBLAS and cuSPARSE.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../geometry.h"
#include "launch.h"

namespace mmadder {
namespace {

using cuda::DType;
using cuda::InputGradient;
using cuda::Plan;

DType dtype_of(const char* op, const at::Tensor& input) {
  switch (input.scalar_type()) {
    case at::kFloat: return DType::kFloat;
    case at::kHalf: return DType::kHalf;
    case at::kBFloat16: return DType::kBFloat16;
    case at::kDouble: return DType::kDouble;
    default:
      TORCH_CHECK(false, op, ": floating-point tensors expected, got ",
                  input.scalar_type());
  }
}

// All sizes of a checked geometry fit 32 bits.
cuda::Shape shape_of(const Conv2dGeometry& g) {
  const auto i = [](int64_t size) { return static_cast<int>(size); };
  // clang-format off
  return {i(g.batch), i(g.in_channels), i(g.in_h), i(g.in_w),
          i(g.out_channels), i(g.out_h), i(g.out_w), i(g.kernel_h),
          i(g.kernel_w), i(g.stride_h), i(g.stride_w), i(g.pad_h), i(g.pad_w),
          i(g.dilation_h), i(g.dilation_w), i(g.groups),
          i(g.in_channels_per_group()), i(g.out_channels_per_group())};
  // clang-format on
}

int multiprocessors(at::Device device) {
  int count = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(
      &count, cudaDevAttrMultiProcessorCount, device.index()));
  return count;
}

// Packed weights and partial results of one call.
struct Scratch {
  at::Tensor packed, partial;

  Scratch(const Plan& plan, const at::Tensor& like)
      : packed(
            at::empty({plan.packed_bytes}, like.options().dtype(at::kByte))),
        partial(at::empty(
            {plan.partial_numel}, like.options().dtype(at::kFloat))) {}
  float* partial_or_null() const {
    return partial.numel() ? partial.mutable_data_ptr<float>() : nullptr;
  }
};

at::Tensor adder_conv2d_cuda(
    const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    c10::string_view mode, c10::string_view input_gradient, bool center) {
  const char* name = "adder_conv2d";
  check_memory(name, input, weight, "weight");
  TORCH_CHECK_VALUE(
      mode == "auto" || mode == "exact", name, ": mode='", mode,
      "' has no CUDA kernel, since no bound of its error is proven there; use "
      "'auto' or 'exact', which are both the exact form");
  const auto dtype = dtype_of(name, input);
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  check_center(g, center);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto x = input.contiguous(), w = weight.contiguous();
  const auto output =
      at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, x.options());
  if (output.numel() == 0)
    return output;
  const auto shape = shape_of(g);
  const auto plan = cuda::plan_forward(
      shape, dtype, multiprocessors(input.device()), center);
  const Scratch scratch(plan, x);
  C10_CUDA_CHECK(cuda::launch_forward(
      dtype, plan, shape, x.const_data_ptr(), w.const_data_ptr(),
      scratch.packed.mutable_data_ptr(), scratch.partial_or_null(),
      output.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return output;
}

at::Tensor adder_conv2d_input_grad_cuda(
    const at::Tensor& grad_output, const at::Tensor& input,
    const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups,
    c10::string_view input_gradient) {
  const char* name = "adder_conv2d_input_grad";
  check_memory(name, input, weight, "weight");
  check_memory(name, input, grad_output, "grad_output");
  TORCH_CHECK_VALUE(
      input_gradient == "hardtanh" || input_gradient == "sign", name,
      ": input_gradient must be 'hardtanh' or 'sign', got '", input_gradient,
      "'");
  const auto dtype = dtype_of(name, input);
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  check_grad_output(name, grad_output, g);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto grad = grad_output.contiguous(), x = input.contiguous(),
             w = weight.contiguous();
  const auto grad_input = at::empty(x.sizes(), x.options());
  if (grad_input.numel() == 0)
    return grad_input;
  const auto shape = shape_of(g);
  const auto form = input_gradient == "sign"
      ? InputGradient::kSign
      : InputGradient::kHardtanh;
  const auto plan =
      cuda::plan_input_grad(shape, dtype, multiprocessors(input.device()));
  const Scratch scratch(plan, x);
  C10_CUDA_CHECK(cuda::launch_input_grad(
      dtype, plan, shape, form, grad.const_data_ptr(), x.const_data_ptr(),
      w.const_data_ptr(), scratch.packed.mutable_data_ptr(),
      scratch.partial_or_null(), grad_input.mutable_data_ptr(),
      c10::cuda::getCurrentCUDAStream()));
  return grad_input;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CUDA, m) {
  m.impl("adder_conv2d", adder_conv2d_cuda);
  m.impl("adder_conv2d_input_grad", adder_conv2d_input_grad_cuda);
}

}  // namespace mmadder
