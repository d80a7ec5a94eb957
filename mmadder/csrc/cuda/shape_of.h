// From the operators' geometry to that of the kernels. Needs no CUDA.
#pragma once

#include "../geometry.h"
#include "plan.h"

namespace mmadder {
namespace cuda {

// All sizes of a checked geometry fit 32 bits.
inline Shape shape_of(const Conv2dGeometry& g) {
  const auto i = [](int64_t size) { return static_cast<int>(size); };
  // clang-format off
  return {i(g.batch), i(g.in_channels), i(g.in_h), i(g.in_w),
          i(g.out_channels), i(g.out_h), i(g.out_w), i(g.kernel_h),
          i(g.kernel_w), i(g.stride_h), i(g.stride_w), i(g.pad_h), i(g.pad_w),
          i(g.dilation_h), i(g.dilation_w), i(g.groups),
          i(g.in_channels_per_group()), i(g.out_channels_per_group())};
  // clang-format on
}

}  // namespace cuda
}  // namespace mmadder
