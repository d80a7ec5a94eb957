// float64 by plain loops: for reference and gradient checks, not for speed.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "drivers.h"

namespace mmadder::cpu {
namespace {

double slope(double difference, InputGradient form) {
  if (form == kHardtanh)
    return std::isnan(difference)
        ? difference
        : std::clamp(difference, -1., 1.);
  return difference > 0 ? 1. : difference < 0 ? -1. : difference;
}

// Calls visit(input index or -1 for padding, weight index) for each tap of
// one output.
template <typename Visit>
void for_each_tap(const Conv2dGeometry& g, int64_t n, int64_t oc, int64_t oh,
                  int64_t ow, const Visit& visit) {
  const int64_t channels = g.in_channels_per_group();
  const int64_t group = oc / g.out_channels_per_group();
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t kh = 0; kh < g.kernel_h; ++kh)
      for (int64_t kw = 0; kw < g.kernel_w; ++kw) {
        const int64_t ih = oh * g.stride_h - g.pad_h + kh * g.dilation_h;
        const int64_t iw = ow * g.stride_w - g.pad_w + kw * g.dilation_w;
        const bool inside = ih >= 0 && ih < g.in_h && iw >= 0 && iw < g.in_w;
        const int64_t plane = n * g.in_channels + group * channels + c;
        visit(inside ? (plane * g.in_h + ih) * g.in_w + iw : -1,
              ((oc * channels + c) * g.kernel_h + kh) * g.kernel_w + kw);
      }
}

}  // namespace

void adder_conv2d_f64(
    const Conv2dGeometry& g, const double* input, const double* weight,
    double* output) {
  const int64_t plane = g.out_h * g.out_w;
  at::parallel_for(
      0, g.batch * g.out_channels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * plane; i < end * plane; ++i) {
          double sum = 0;
          for_each_tap(
              g, i / plane / g.out_channels, i / plane % g.out_channels,
              i % plane / g.out_w, i % g.out_w, [&](int64_t x, int64_t w) {
                sum += std::abs((x < 0 ? 0. : input[x]) - weight[w]);
              });
          output[i] = -sum;
        }
      });
}

void adder_conv2d_input_grad_f64(
    const Conv2dGeometry& g, const double* grad_output, const double* input,
    const double* weight, InputGradient form, double* grad_input) {
  const int64_t plane = g.out_h * g.out_w;
  std::fill(
      grad_input, grad_input + g.batch * g.in_channels * g.in_h * g.in_w, 0.);
  // Scatter: images are apart, so threads never meet.
  at::parallel_for(0, g.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * g.out_channels * plane;
         i < end * g.out_channels * plane; ++i)
      for_each_tap(
          g, i / plane / g.out_channels, i / plane % g.out_channels,
          i % plane / g.out_w, i % g.out_w, [&](int64_t x, int64_t w) {
            if (x >= 0)
              grad_input[x] +=
                  grad_output[i] * slope(weight[w] - input[x], form);
          });
  });
}

}  // namespace mmadder::cpu
