// Sizes that fake tensors need: of outputs, and of packed weights.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <vector>

#include "cpu/drivers.h"
#include "cuda/shape_of.h"
#include "geometry.h"

namespace mmadder {
namespace {

// With the checks of the operators.
std::vector<int64_t> adder_conv2d_output_size(
    at::IntArrayRef input, at::IntArrayRef weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    bool center) {
  const auto g =
      conv2d_geometry(input, weight, stride, padding, dilation, groups);
  check_center(g, center);
  return {g.batch, g.out_channels, g.out_h, g.out_w};
}

// Elements, which on a CPU this processor's kernels decide, on a GPU the
// tiles.
int64_t adder_conv2d_packed_size(
    at::IntArrayRef weight, int64_t groups, bool codes, bool on_gpu) {
  const auto g = weight_geometry(weight, groups);
  if (on_gpu)
    return cuda::packed_forward(cuda::shape_of(g)).numel(g.groups);
  return codes ? cpu::packed_codes_size(g) : cpu::packed_weight_size(g);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmadder, CompositeExplicitAutograd, m) {
  m.impl("adder_conv2d_output_size", adder_conv2d_output_size);
  m.impl("adder_conv2d_packed_size", adder_conv2d_packed_size);
}

}  // namespace mmadder
