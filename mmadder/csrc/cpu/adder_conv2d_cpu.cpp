// CPU operators: memory checks, allocation, dtype switch, registration.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "drivers.h"
#include "glue.h"

namespace mmadder {
namespace {

// Half types are computed in float32.
at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor dense(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.to(dtype).contiguous();
}

at::Tensor adder_conv2d_cpu(
    const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    c10::string_view mode, c10::string_view input_gradient, bool center) {
  check_memory("adder_conv2d", input, weight, "weight");
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  check_center(g, center);
  if (skips_pixels(g))
    return adder_conv2d_cpu(
        met_pixels(g, input), weight, {1, 1}, padding, dilation, groups, mode,
        input_gradient, center);
  const auto form = parse_mode(mode);
  const auto dtype = compute_type(input);
  const auto w = dense(weight, dtype);
  const auto output =
      at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, w.options());
  if (output.numel() == 0)
    return output.to(input.scalar_type());
  if (dtype == at::kDouble) {
    cpu::adder_conv2d_f64(
        g, dense(input, dtype).const_data_ptr<double>(),
        w.const_data_ptr<double>(), output.mutable_data_ptr<double>());
    if (center) {
      const auto filters =
          output.view({g.batch, g.groups, -1, g.out_h, g.out_w});
      filters.sub_(filters.mean(2, /*keepdim=*/true));
    }
    return output;
  }
  const auto x = readable(input);
  cpu::Epilogue epilogue;
  epilogue.center = center;
  if (cpu::adder_conv2d_f32(
          g, form, images(x), w.const_data_ptr<float>(), nullptr, epilogue,
          output.mutable_data_ptr<float>()))
    warn_exact();
  return output.to(input.scalar_type());
}

at::Tensor adder_conv2d_input_grad_cpu(
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
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  check_grad_output(name, grad_output, g);
  if (skips_pixels(g)) {
    const auto grad_input = at::zeros(input.sizes(), input.options());
    met_pixels(g, grad_input)
        .copy_(adder_conv2d_input_grad_cpu(
            grad_output, met_pixels(g, input), weight, {1, 1}, padding,
            dilation, groups, input_gradient));
    return grad_input;
  }
  const auto dtype = compute_type(input);
  const auto slope = input_gradient == "sign" ? cpu::kSign : cpu::kHardtanh;
  const auto w = dense(weight, dtype);
  const auto grad_input = at::empty(input.sizes(), w.options());
  if (grad_input.numel() == 0)
    return grad_input.to(input.scalar_type());
  if (dtype == at::kDouble) {
    cpu::adder_conv2d_input_grad_f64(
        g, dense(grad_output, dtype).const_data_ptr<double>(),
        dense(input, dtype).const_data_ptr<double>(),
        w.const_data_ptr<double>(), slope,
        grad_input.mutable_data_ptr<double>());
    return grad_input;
  }
  const auto grad = readable(grad_output), x = readable(input);
  cpu::adder_conv2d_input_grad_f32(
      g, images(grad), images(x), w.const_data_ptr<float>(), slope,
      grad_input.mutable_data_ptr<float>());
  return grad_input.to(input.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CPU, m) {
  m.impl("adder_conv2d", adder_conv2d_cpu);
  m.impl("adder_conv2d_input_grad", adder_conv2d_input_grad_cpu);
}

}  // namespace mmadder
