// What the CPU operators share between tensors and drivers.
#pragma once

#include <ATen/ATen.h>

#include "drivers.h"

namespace mmadder {

inline cpu::Mode parse_mode(c10::string_view mode) {
  TORCH_CHECK_VALUE(
      mode == "auto" || mode == "exact" || mode == "max",
      "adder_conv2d: mode must be 'auto', 'exact' or 'max', got '", mode, "'");
  if (mode == "auto")
    return cpu::Mode::kAuto;
  return mode == "max" ? cpu::Mode::kMax : cpu::Mode::kExact;
}

inline void warn_exact() {
  TORCH_WARN_ONCE(
      "adder_conv2d: mode='auto' took the slower exact form, because some "
      "outputs are too close to zero for the max form to resolve, or not "
      "finite. mode='exact' saves the vain attempt. (Said once.)");
}

// Float32 as the kernels read it: NCHW or channels_last without a copy.
inline at::Tensor readable(const at::Tensor& tensor) {
  const auto floats = tensor.to(at::kFloat);
  return floats.is_contiguous(at::MemoryFormat::ChannelsLast)
      ? floats
      : floats.contiguous();
}

// An image without pixels has no memory either; its padding is packed as that
// of others, with an address to count from.
template <typename T>
const T* data_or_nothing(const at::Tensor& tensor) {
  static const T nothing{};
  return tensor.numel() > 0 ? tensor.const_data_ptr<T>() : &nothing;
}

// Of what is readable(). Its strides come from its sizes: of an axis of size 1
// the tensor may have any, from which the kernels would read another layout.
inline cpu::Images images(const at::Tensor& tensor) {
  const int64_t c = tensor.size(1), h = tensor.size(2), w = tensor.size(3);
  const auto* data = data_or_nothing<float>(tensor);
  if (tensor.is_contiguous())
    return {data, c * h * w, h * w, w, 1};
  return {data, h * w * c, 1, w * c, c};
}

// A strided 1x1 window without padding meets every stride-th pixel only.
inline bool skips_pixels(const Conv2dGeometry& g) {
  return g.taps() == 1 && g.pad_h == 0 && g.pad_w == 0 &&
      g.stride_h * g.stride_w > 1;
}

inline at::Tensor met_pixels(
    const Conv2dGeometry& g, const at::Tensor& image) {
  return image.slice(2, 0, c10::nullopt, g.stride_h)
      .slice(3, 0, c10::nullopt, g.stride_w);
}

}  // namespace mmadder
