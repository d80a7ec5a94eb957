// CPU operators of inference: packed weights, fused epilogues, 8-bit codes.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>

#include "drivers.h"
#include "glue.h"

namespace mmadder {
namespace {

// The tensors of an epilogue, checked and dense.
class EpilogueTensors {
 public:
  EpilogueTensors(
      const char* op, const Conv2dGeometry& g, const at::Tensor& mean,
      const at::Tensor& scale, const at::Tensor& bias,
      const std::optional<at::Tensor>& residual, bool relu, bool center)
      : mean_(mean.contiguous()),
        scale_(scale.contiguous()),
        bias_(bias.contiguous()) {
    check_epilogue(op, g, mean, scale, bias, residual, center);
    epilogue_ = {
        mean_.const_data_ptr<float>(),
        scale_.const_data_ptr<float>(),
        bias_.const_data_ptr<float>(),
        nullptr,
        relu,
        center};
    if (residual) {
      residual_ = residual->contiguous();
      epilogue_.residual = residual_.const_data_ptr<float>();
    }
  }
  const cpu::Epilogue& get() const { return epilogue_; }

 private:
  at::Tensor mean_, scale_, bias_, residual_;
  cpu::Epilogue epilogue_;
};

at::Tensor adder_conv2d_pack_weight(
    const at::Tensor& weight, int64_t groups, bool shifted) {
  const bool codes = weight.scalar_type() == at::kByte;
  if (!codes)
    check_floats("adder_conv2d_pack_weight", "weight", weight, weight.sizes());
  const auto g = weight_geometry(weight.sizes(), groups);
  const auto packed = at::empty(
      {codes ? cpu::packed_codes_size(g) : cpu::packed_weight_size(g)},
      weight.options());
  const auto w = weight.contiguous();
  if (codes)
    cpu::pack_codes(
        g, w.const_data_ptr<uint8_t>(), packed.mutable_data_ptr<uint8_t>());
  else
    cpu::pack_weight(g, shifted, w.const_data_ptr<float>(),
                     packed.mutable_data_ptr<float>());
  return packed;
}

at::Tensor adder_conv2d_fused(
    const at::Tensor& input, const at::Tensor& weight,
    const at::Tensor& packed_weight, const at::Tensor& mean,
    const at::Tensor& scale, const at::Tensor& bias,
    const std::optional<at::Tensor>& residual, bool relu,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
    int64_t groups, c10::string_view mode, bool center) {
  const char* op = "adder_conv2d_fused";
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  if (skips_pixels(g))
    return adder_conv2d_fused(
        met_pixels(g, input), weight, packed_weight, mean, scale, bias,
        residual, relu, {1, 1}, padding, dilation, groups, mode, center);
  check_floats(op, "input", input, input.sizes());
  check_floats(op, "weight", weight, weight.sizes());
  check_floats(
      op, "packed_weight", packed_weight, {cpu::packed_weight_size(g)});
  const auto form = parse_mode(mode);
  const EpilogueTensors epilogue(
      op, g, mean, scale, bias, residual, relu, center);
  const auto output =
      at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, input.options());
  const auto x = readable(input), w = weight.contiguous();
  if (output.numel() > 0 &&
      cpu::adder_conv2d_f32(
          g, form, images(x), w.const_data_ptr<float>(),
          packed_weight.contiguous().const_data_ptr<float>(), epilogue.get(),
          output.mutable_data_ptr<float>()))
    warn_exact();
  return output;
}

at::Tensor adder_conv2d_int8(
    const at::Tensor& input, const at::Tensor& weight,
    const at::Tensor& packed_weight, double code_scale, int64_t zero_point,
    const at::Tensor& mean, const at::Tensor& scale, const at::Tensor& bias,
    const std::optional<at::Tensor>& residual, bool relu,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
    int64_t groups, bool center) {
  const char* op = "adder_conv2d_int8";
  const auto g = conv2d_geometry(
      input.sizes(), weight.sizes(), stride, padding, dilation, groups);
  if (skips_pixels(g))
    return adder_conv2d_int8(
        met_pixels(g, input), weight, packed_weight, code_scale, zero_point,
        mean, scale, bias, residual, relu, {1, 1}, padding, dilation, groups,
        center);
  TORCH_CHECK(
      input.device().is_cpu() &&
          (input.scalar_type() == at::kByte ||
           input.scalar_type() == at::kFloat),
      op, ": input must be uint8 codes, or float32 to be quantized, on the ",
      "CPU, got ", input.scalar_type(), " on ", input.device());
  TORCH_CHECK(weight.scalar_type() == at::kByte && weight.device().is_cpu(),
              op, ": weight must be uint8 codes on the CPU, got ",
              weight.scalar_type(), " on ", weight.device());
  TORCH_CHECK_VALUE(
      packed_weight.scalar_type() == at::kByte &&
          packed_weight.sizes() ==
              at::IntArrayRef({cpu::packed_codes_size(g)}),
      op, ": packed_weight must be adder_conv2d_pack_weight(weight, groups)");
  TORCH_CHECK_VALUE(
      std::isnormal(static_cast<float>(code_scale)) && code_scale > 0, op,
      ": code_scale must be positive and finite, got ", code_scale);
  TORCH_CHECK_VALUE(zero_point >= 0 && zero_point <= 255, op,
                    ": zero_point must be a code, 0 to 255, got ", zero_point);
  const int64_t terms = g.in_channels_per_group() * g.taps();
  const int64_t most = std::numeric_limits<int32_t>::max() / 255;
  TORCH_CHECK_VALUE(
      terms < most, op, ": a sum over ", terms, " codes overflows 32 bits");
  TORCH_CHECK_VALUE(
      !center || terms < most / g.out_channels_per_group(), op,
      ": center "
      "sums over ",
      terms, " codes and ", g.out_channels_per_group(),
      " filters, which overflows 32 bits; leave this layer in float");
  const EpilogueTensors epilogue(
      op, g, mean, scale, bias, residual, relu, center);
  const auto output =
      at::empty({g.batch, g.out_channels, g.out_h, g.out_w}, mean.options());
  if (output.numel() == 0)
    return output;
  const auto x = input.contiguous(), w = packed_weight.contiguous();
  const cpu::Codes codes{
      static_cast<float>(code_scale), static_cast<int>(zero_point)};
  const auto run = [&](const auto* data) {
    cpu::adder_conv2d_u8(g, data, w.const_data_ptr<uint8_t>(), codes,
                         epilogue.get(), output.mutable_data_ptr<float>());
  };
  if (x.scalar_type() == at::kByte)
    run(data_or_nothing<uint8_t>(x));
  else
    run(data_or_nothing<float>(x));
  return output;
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CPU, m) {
  m.impl("adder_conv2d_pack_weight", adder_conv2d_pack_weight);
  m.impl("adder_conv2d_fused", adder_conv2d_fused);
  m.impl("adder_conv2d_int8", adder_conv2d_int8);
}

}  // namespace mmadder
