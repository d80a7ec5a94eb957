// CUDA operators: memory checks, allocation, scratch, registration. c10's
// CUDA headers only, since ATen's want those of cuBLAS and cuSPARSE.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "launch.h"
#include "shape_of.h"

namespace mmadder {
namespace {

using cuda::DType;
using cuda::InputGradient;
using cuda::Plan;
using cuda::shape_of;

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

void check_mode(const char* op, c10::string_view mode) {
  TORCH_CHECK_VALUE(
      mode == "auto" || mode == "exact", op, ": mode='", mode,
      "' has no CUDA kernel, since no bound of its error is proven there; use "
      "'auto' or 'exact', which are both the exact form");
}

at::Tensor adder_conv2d_cuda(
    const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    c10::string_view mode, c10::string_view input_gradient, bool center) {
  const char* name = "adder_conv2d";
  check_memory(name, input, weight, "weight");
  check_mode(name, mode);
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

at::Tensor adder_conv2d_pack_weight_cuda(
    const at::Tensor& weight, int64_t groups, bool shifted) {
  const char* op = "adder_conv2d_pack_weight";
  check_floats(op, "weight", weight, weight.sizes(), weight.device());
  const auto shape = shape_of(weight_geometry(weight.sizes(), groups));
  const c10::cuda::CUDAGuard guard(weight.device());
  const auto packed =
      at::empty({cuda::packed_forward(shape).numel(groups)}, weight.options());
  if (packed.numel() > 0)
    C10_CUDA_CHECK(cuda::launch_pack(
        shape, weight.contiguous().const_data_ptr<float>(),
        packed.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream()));
  return packed;
}

// Contiguous, and where vectors of four can be read.
at::Tensor aligned(const at::Tensor& tensor) {
  const auto dense = tensor.contiguous();
  const auto address = reinterpret_cast<uintptr_t>(dense.const_data_ptr());
  return address % 16 == 0 ? dense : dense.clone();
}

at::Tensor adder_conv2d_fused_cuda(
    const at::Tensor& input, const at::Tensor& weight,
    const at::Tensor& packed_weight, const at::Tensor& mean,
    const at::Tensor& scale, const at::Tensor& bias,
    const std::optional<at::Tensor>& residual, bool relu,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
    int64_t groups, c10::string_view mode, bool center) {
  const char* op = "adder_conv2d_fused";
  const auto device = input.device();
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  const auto shape = shape_of(g);
  check_floats(op, "input", input, input.sizes(), device);
  check_floats(op, "weight", weight, weight.sizes(), device);
  check_floats(op, "packed_weight", packed_weight,
               {cuda::packed_forward(shape).numel(groups)}, device);
  check_mode(op, mode);
  check_epilogue(op, g, mean, scale, bias, residual, center, device);
  const c10::cuda::CUDAGuard guard(device);
  const auto output =
      at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, input.options());
  if (output.numel() == 0)
    return output;
  const auto plan = cuda::plan_fused(shape, multiprocessors(device), center);
  const Scratch scratch(plan, input);
  const auto x = input.contiguous(), w = weight.contiguous();
  const auto packed = aligned(packed_weight);
  const auto m = mean.contiguous(), s = scale.contiguous();
  const auto b = bias.contiguous();
  const auto r = residual ? aligned(*residual) : at::Tensor();
  const cuda::Epilogue end{
      m.const_data_ptr<float>(),
      s.const_data_ptr<float>(),
      b.const_data_ptr<float>(),
      residual ? r.const_data_ptr<float>() : nullptr,
      relu,
      center};
  C10_CUDA_CHECK(cuda::launch_fused(
      plan, shape,
      {x.const_data_ptr<float>(), w.const_data_ptr<float>(),
       packed.const_data_ptr<float>(), scratch.partial_or_null(),
       output.mutable_data_ptr<float>(), end},
      c10::cuda::getCurrentCUDAStream()));
  return output;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CUDA, m) {
  m.impl("adder_conv2d", adder_conv2d_cuda);
  m.impl("adder_conv2d_pack_weight", adder_conv2d_pack_weight_cuda);
  m.impl("adder_conv2d_fused", adder_conv2d_fused_cuda);
  m.impl("adder_conv2d_input_grad", adder_conv2d_input_grad_cuda);
}

}  // namespace mmadder
