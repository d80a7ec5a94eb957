// Sizes of one adder convolution, and the checks that make them safe to use.
#pragma once

#include <ATen/ATen.h>

#include <limits>
#include <optional>

namespace mmadder {

struct Conv2dGeometry {
  int64_t batch, in_channels, in_h, in_w;
  int64_t out_channels, out_h, out_w;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups;

  int64_t in_channels_per_group() const { return in_channels / groups; }
  int64_t out_channels_per_group() const { return out_channels / groups; }
  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t out_numel() const { return batch * out_channels * out_h * out_w; }
};

// Empty when a kernel is larger than the padded image.
inline int64_t output_size(
    int64_t in, int64_t kernel, int64_t stride, int64_t pad,
    int64_t dilation) {
  const int64_t span = in + 2 * pad - dilation * (kernel - 1) - 1;
  return span < 0 ? 0 : span / stride + 1;
}

inline Conv2dGeometry conv2d_geometry(
    at::IntArrayRef input, at::IntArrayRef weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  TORCH_CHECK_VALUE(input.size() == 4,
                    "adder_conv2d: input must be (N, C, H, W), got ", input);
  TORCH_CHECK_VALUE(
      weight.size() == 4,
      "adder_conv2d: weight must be (C_out, C_in / groups, K_h, K_w), got ",
      weight);
  TORCH_CHECK_VALUE(
      stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
      "adder_conv2d: stride, padding and dilation are pairs (h, w), got ",
      stride, ", ", padding, " and ", dilation);
  TORCH_CHECK_VALUE(stride[0] > 0 && stride[1] > 0,
                    "adder_conv2d: stride must be positive, got ", stride);
  TORCH_CHECK_VALUE(dilation[0] > 0 && dilation[1] > 0,
                    "adder_conv2d: dilation must be positive, got ", dilation);
  TORCH_CHECK_VALUE(
      padding[0] >= 0 && padding[1] >= 0,
      "adder_conv2d: padding must not be negative, got ", padding);
  TORCH_CHECK_VALUE(
      groups > 0 && input[1] % groups == 0 && weight[0] % groups == 0,
      "adder_conv2d: groups must divide the channels of input ", input,
      " and of weight ", weight, ", got groups=", groups);
  TORCH_CHECK_VALUE(
      weight[1] == input[1] / groups, "adder_conv2d: weight ", weight,
      " expects ", weight[1] * groups, " input channels with groups=", groups,
      ", input ", input, " has ", input[1]);
  TORCH_CHECK_VALUE(
      weight[0] > 0 && weight[1] > 0 && weight[2] > 0 && weight[3] > 0,
      "adder_conv2d: weight must not be empty, got ", weight);
  // Every size below fits 32 bits, so no product of two overflows 64.
  constexpr int64_t limit = std::numeric_limits<int32_t>::max();
  for (const auto sizes : {input, weight, stride, padding, dilation})
    for (const auto size : sizes)
      TORCH_CHECK_VALUE(size <= limit, "adder_conv2d: ", size,
                        " is too large (limit ", limit, ")");
  Conv2dGeometry g{};
  g.batch = input[0], g.in_channels = input[1];
  g.in_h = input[2], g.in_w = input[3];
  g.out_channels = weight[0];
  g.kernel_h = weight[2], g.kernel_w = weight[3];
  g.stride_h = stride[0], g.stride_w = stride[1];
  g.pad_h = padding[0], g.pad_w = padding[1];
  g.dilation_h = dilation[0], g.dilation_w = dilation[1];
  g.groups = groups;
  g.out_h = output_size(g.in_h, g.kernel_h, g.stride_h, g.pad_h, g.dilation_h);
  g.out_w = output_size(g.in_w, g.kernel_w, g.stride_w, g.pad_w, g.dilation_w);
  TORCH_CHECK_VALUE(
      g.out_h > 0 && g.out_w > 0,
      "adder_conv2d: the output would be empty: kernel (", g.kernel_h, ", ",
      g.kernel_w, ") with dilation ", dilation, " does not fit input ", input,
      " with padding ", padding);
  return g;
}

inline void check_center(const Conv2dGeometry& g, bool center) {
  TORCH_CHECK_VALUE(
      !center || g.out_channels_per_group() > 1,
      "adder_conv2d: center needs two filters or more in a group, got ",
      g.out_channels, " filters in ", g.groups,
      " groups: less their own mean, all outputs would be zero");
}

// Of a packed weight only channels, kernel and groups count.
inline Conv2dGeometry weight_geometry(at::IntArrayRef weight, int64_t groups) {
  TORCH_CHECK_VALUE(
      weight.size() == 4,
      "adder_conv2d: weight must be (C_out, C_in / groups, K_h, K_w), got ",
      weight);
  return conv2d_geometry(
      {1, weight[1] * groups, weight[2], weight[3]}, weight, {1, 1}, {0, 0},
      {1, 1}, groups);
}

// That a tensor is like input, as the kernels need it.
inline void check_memory(
    const char* op, const at::Tensor& input, const at::Tensor& other,
    const char* name) {
  TORCH_CHECK(other.device() == input.device(), op, ": ", name, " is on ",
              other.device(), ", input on ", input.device());
  TORCH_CHECK(other.scalar_type() == input.scalar_type(), op, ": ", name,
              " is ", other.scalar_type(), ", input ", input.scalar_type());
  TORCH_CHECK(at::isFloatingType(input.scalar_type()), op,
              ": floating-point tensors expected, got ", input.scalar_type());
}

// That a tensor of the fused operators is float32 on their device.
inline void check_floats(
    const char* op, const char* name, const at::Tensor& tensor,
    at::IntArrayRef sizes, at::Device device = at::kCPU) {
  TORCH_CHECK(
      tensor.scalar_type() == at::kFloat && tensor.device() == device, op,
      ": ", name, " must be float32 on ",
      device.is_cpu() ? "the CPU" : device.str(), ", got ",
      tensor.scalar_type(), " on ", tensor.device());
  TORCH_CHECK_VALUE(tensor.sizes() == sizes, op, ": ", name, " has shape ",
                    tensor.sizes(), ", expected ", sizes);
}

// The tensors of a fused epilogue.
inline void check_epilogue(
    const char* op, const Conv2dGeometry& g, const at::Tensor& mean,
    const at::Tensor& scale, const at::Tensor& bias,
    const std::optional<at::Tensor>& residual, bool center,
    at::Device device = at::kCPU) {
  check_center(g, center);
  check_floats(op, "mean", mean, {g.out_channels}, device);
  check_floats(op, "scale", scale, {g.out_channels}, device);
  check_floats(op, "bias", bias, {g.out_channels}, device);
  if (residual)
    check_floats(op, "residual", *residual,
                 {g.batch, g.out_channels, g.out_h, g.out_w}, device);
}

inline void check_grad_output(
    const char* op, const at::Tensor& grad_output, const Conv2dGeometry& g) {
  const int64_t expected[] = {g.batch, g.out_channels, g.out_h, g.out_w};
  TORCH_CHECK_VALUE(
      grad_output.sizes() == at::IntArrayRef(expected), op,
      ": grad_output has shape ", grad_output.sizes(), ", expected ",
      at::IntArrayRef(expected));
}

}  // namespace mmadder
