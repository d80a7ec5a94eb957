// Under autocast a centered adder takes and returns the lower precision, as a
// convolution does; it is centered before it is rounded. A plain one runs in
// float32 and returns float32: its outputs are sums of thousands of distances
// with a small spread, which half types cannot resolve (at 4,000 float16 steps
// by 2 and bfloat16 by 16).
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include <string>

namespace mmadder {
namespace {

template <c10::DispatchKey key, c10::DeviceType device>
at::Tensor adder_conv2d_autocast(
    const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    c10::string_view mode, c10::string_view input_gradient, bool center) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("mmadder::adder_conv2d", "")
          .typed<at::Tensor(
              const at::Tensor&, const at::Tensor&, at::IntArrayRef,
              at::IntArrayRef, at::IntArrayRef, int64_t, c10::string_view,
              c10::string_view, bool)>();
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  const auto dtype = center
      ? at::autocast::get_lower_precision_fp_from_device_type(device)
      : at::kFloat;
  return op.call(
      at::autocast::cached_cast(dtype, input, device),
      at::autocast::cached_cast(dtype, weight, device), stride, padding,
      dilation, groups, mode, input_gradient, center);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, AutocastCPU, m) {
  m.impl("adder_conv2d",
         adder_conv2d_autocast<c10::DispatchKey::AutocastCPU, at::kCPU>);
}
TORCH_LIBRARY_IMPL(mmadder, AutocastCUDA, m) {
  m.impl("adder_conv2d",
         adder_conv2d_autocast<c10::DispatchKey::AutocastCUDA, at::kCUDA>);
}

}  // namespace mmadder
