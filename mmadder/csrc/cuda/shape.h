// What host and kernels share; no torch headers, nvcc sees this file.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define MMADDER_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MMADDER_HOST_DEVICE inline
#endif

namespace mmadder {
namespace cuda {

enum class DType { kFloat, kHalf, kBFloat16, kDouble };

// Form of dY/dX: clip(W - X, -1, 1) or its sign.
enum class InputGradient { kHardtanh, kSign };

// 32 bits serve one image plane; what spans planes is computed in 64.
struct Shape {
  int batch, in_channels, in_h, in_w;
  int out_channels, out_h, out_w;
  int kernel_h, kernel_w;
  int stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int groups, in_per_group, out_per_group;

  MMADDER_HOST_DEVICE int64_t in_plane() const { return (int64_t)in_h * in_w; }
  MMADDER_HOST_DEVICE int64_t out_plane() const {
    return (int64_t)out_h * out_w;
  }
  MMADDER_HOST_DEVICE int64_t in_numel() const {
    return (int64_t)batch * in_channels * in_plane();
  }
  MMADDER_HOST_DEVICE int64_t out_numel() const {
    return (int64_t)batch * out_channels * out_plane();
  }
  MMADDER_HOST_DEVICE int64_t taps() const {
    return (int64_t)kernel_h * kernel_w;
  }
};

// What inference makes of a sum: relu((sum - mean) * scale + bias + residual),
// of the centered sum with center. mean, scale and bias: (C_out,); residual:
// like the output, or null. A functor of the sum, its channel and its place.
struct Epilogue {
  const float* mean;
  const float* scale;
  const float* bias;
  const float* residual;
  bool relu, center;

  MMADDER_HOST_DEVICE float rectified(float y) const {
    return relu && y < 0.f ? 0.f : y;  // NaN stays
  }
  MMADDER_HOST_DEVICE float operator()(
      float sum, int channel, int64_t place) const {
    const float y = (sum - mean[channel]) * scale[channel] + bias[channel];
    return rectified(residual ? y + residual[place] : y);
  }
};

// Its place in training.
struct NoEpilogue {
  bool center;

  template <typename Sum>
  MMADDER_HOST_DEVICE Sum operator()(Sum sum, int, int64_t) const {
    return sum;
  }
};

MMADDER_HOST_DEVICE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Input rows fall into `stride` classes by their remainder. The kernel taps
// that meet rows of one class are first, first + step, ...; from one to the
// next, the output row drops by out_step. So no tap is multiplied by zero.
struct TapSeries {
  int first, step, count, out_step;
};

MMADDER_HOST_DEVICE TapSeries tap_series(
    int remainder, int kernel, int stride, int pad, int dilation) {
  TapSeries s{0, 1, 0, 0};
  while (
      s.first < kernel && (remainder + pad - s.first * dilation) % stride != 0)
    ++s.first;
  while (s.step < kernel && s.step * dilation % stride != 0)
    ++s.step;
  if (s.first < kernel)
    s.count = (kernel - 1 - s.first) / s.step + 1;
  if (s.step < kernel)
    s.out_step = s.step * dilation / stride;
  return s;
}

// Packed weights: (group, class, depth, pitch) with depth = tap * channels +
// channel. Rows of a tile lie side by side; all beyond the weight is zero.
struct PackedShape {
  int classes_h, classes_w;  // stride classes; 1, 1 in the forward
  int depth;
  unsigned pitch;

  MMADDER_HOST_DEVICE int classes() const { return classes_h * classes_w; }
  MMADDER_HOST_DEVICE int64_t numel(int64_t groups) const {
    return groups * classes() * depth * pitch;
  }
};

// How the taps of a pixel walk over the summed image. Jumps lead from one
// tap's last channel to the next tap's first, and further to the next row.
struct Window {
  int channels, taps_h, taps_w;
  int row_step, col_step;  // from tap to tap
  int rows, cols;          // of the image
  unsigned plane;
  int64_t tap_jump, row_jump;

  MMADDER_HOST_DEVICE void set_taps(int h, int w) {
    taps_h = h, taps_w = w;
    tap_jump = col_step - (int64_t)channels * plane;
    row_jump = (int64_t)row_step * cols - (int64_t)w * col_step;
  }
};

// Bytes from one fetch of a thread to its next.
struct Strides {
  int64_t weight, pixel;
};

// Blocks of a tiled kernel, all along x: row tiles vary fastest, so that
// blocks which read the same pixels run together.
struct Blocks {
  int row_tiles, pixel_tiles, splits;
};

}  // namespace cuda
}  // namespace mmadder
