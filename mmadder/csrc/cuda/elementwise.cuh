// Kernels with one thread per element: packing of weights, sums of partial
// results, and the whole operator for shapes that a tile would waste.
#pragma once

#include "device.cuh"

namespace mmadder {
namespace cuda {

#define MMADDER_EACH(index, count)                                     \
  for (int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; \
       index < (count); index += (int64_t)gridDim.x * blockDim.x)

// Type in which one element is summed.
template <typename T>
struct SumType {
  using type = float;
};
template <>
struct SumType<double> {
  using type = double;
};

// weight (C_out, C_in / G, K_h, K_w) to packed (G, 1, depth, pitch): row =
// output channel, depth = tap * C_in / G + input channel.
template <typename T, typename Shared>
__global__ void pack_forward_kernel(
    const T* __restrict__ weight, Shared* __restrict__ packed, const Shape s,
    const PackedShape packing) {
  const int64_t per_group = (int64_t)packing.depth * packing.pitch;
  MMADDER_EACH(e, s.groups * per_group) {
    const int row = e % packing.pitch;
    const int k = e / packing.pitch % packing.depth;
    const int group = e / per_group;
    const int tap = k / s.in_per_group, channel = k % s.in_per_group;
    T value = convert<T>(0.f);
    if (row < s.out_per_group && tap < s.taps())
      // clang-format off
      value = weight[(((int64_t)group * s.out_per_group + row) *
                          s.in_per_group + channel) * s.taps() + tap];
    // clang-format on
    packed[e] = convert<Shared>(value);
  }
}

// weight to packed (G, classes, depth, pitch) = scale * weight + shift: row =
// input channel, depth = tap of the class * C_out / G + output channel.
template <typename T>
__global__ void pack_input_grad_kernel(
    const T* __restrict__ weight, float* __restrict__ packed, const Shape s,
    const PackedShape packing, float scale, float shift) {
  const int64_t per_class = (int64_t)packing.depth * packing.pitch;
  const int classes = packing.classes();
  MMADDER_EACH(e, s.groups * classes * per_class) {
    const int row = e % packing.pitch;
    const int k = e / packing.pitch % packing.depth;
    const int stride_class = e / per_class % classes;
    const int group = e / (per_class * classes);
    const TapSeries h = tap_series(
        stride_class / packing.classes_w, s.kernel_h, s.stride_h, s.pad_h,
        s.dilation_h);
    const TapSeries w = tap_series(
        stride_class % packing.classes_w, s.kernel_w, s.stride_w, s.pad_w,
        s.dilation_w);
    const int tap = k / s.out_per_group, channel = k % s.out_per_group;
    float value = 0.f;
    if (row < s.in_per_group && tap < h.count * w.count) {
      const int kh = h.first + tap / w.count * h.step;
      const int kw = w.first + tap % w.count * w.step;
      // clang-format off
      value = scale * convert<float>(
          weight[((((int64_t)group * s.out_per_group + channel) *
                       s.in_per_group + row) * s.kernel_h + kh) *
                     s.kernel_w + kw]) + shift;
      // clang-format on
    }
    packed[e] = value;
  }
}

// output = sum of the (splits, numel) partial results, in their order.
template <typename T>
__global__ void sum_partial_kernel(
    const float* __restrict__ partial, T* __restrict__ output, int splits,
    int64_t numel) {
  MMADDER_EACH(e, numel) {
    float sum = 0.f;
    for (int split = 0; split < splits; ++split)
      sum += partial[split * numel + e];
    output[e] = convert<T>(sum);
  }
}

// output = sums less their mean over the filters of a group at each pixel, of
// the direct kernel below. Both may be one memory.
template <typename T, typename Sum, typename End>
__global__ void center_kernel(
    const Sum* sums, T* output, const Shape s, const End end) {
  constexpr int kRun = 16;  // short sums keep the rounding error small
  const int64_t plane = s.out_plane();
  MMADDER_EACH(e, (int64_t)s.batch * s.groups * plane) {
    const int64_t first = e / plane * s.out_per_group * plane + e % plane;
    Sum total = 0;
    for (int begin = 0; begin < s.out_per_group; begin += kRun) {
      Sum run = 0;
      for (int m = begin; m < s.out_per_group && m < begin + kRun; ++m)
        run += sums[first + m * plane];
      total += run;
    }
    const Sum mean = total / s.out_per_group;
    const int channel = e / plane % s.groups * s.out_per_group;
    for (int m = 0; m < s.out_per_group; ++m) {
      const int64_t place = first + m * plane;
      output[place] = convert<T>(end(sums[place] - mean, channel + m, place));
    }
  }
}

template <typename T, typename Output, typename End>
__global__ void adder_conv2d_forward_direct_kernel(
    const T* __restrict__ input, const T* __restrict__ weight,
    Output* __restrict__ output, const Shape s, const End end) {
  using Sum = typename SumType<T>::type;
  MMADDER_EACH(e, s.out_numel()) {  // (n, oc, oh, ow)
    const int ow = e % s.out_w;
    const int oh = e / s.out_w % s.out_h;
    const int oc = e / s.out_plane() % s.out_channels;
    const int64_t n = e / (s.out_plane() * s.out_channels);
    const int64_t first_channel =
        n * s.in_channels + (int64_t)(oc / s.out_per_group) * s.in_per_group;
    const T* w = weight + (int64_t)oc * s.in_per_group * s.taps();
    Sum sum = 0;
    for (int ic = 0; ic < s.in_per_group; ++ic) {
      const T* image = input + (first_channel + ic) * s.in_plane();
      for (int kh = 0; kh < s.kernel_h; ++kh) {
        const int64_t ih =
            (int64_t)oh * s.stride_h - s.pad_h + (int64_t)kh * s.dilation_h;
        for (int kw = 0; kw < s.kernel_w; ++kw, ++w) {
          const int64_t iw =
              (int64_t)ow * s.stride_w - s.pad_w + (int64_t)kw * s.dilation_w;
          const bool inside = ih >= 0 && ih < s.in_h && iw >= 0 && iw < s.in_w;
          const Sum x =
              inside ? convert<Sum>(image[ih * s.in_w + iw]) : Sum(0);
          const Sum difference = x - convert<Sum>(*w);
          sum -= difference < 0 ? -difference : difference;
        }
      }
    }
    output[e] = convert<Output>(end(sum, oc, e));
  }
}

// clip(t, -1, 1) or sign(t); NaN stays NaN.
template <typename Sum>
__device__ __forceinline__ Sum surrogate(Sum t, InputGradient form) {
  const Sum inner = form == InputGradient::kSign && t == t ? Sum(0) : t;
  if (form == InputGradient::kSign)
    return t > 0 ? Sum(1) : t < 0 ? Sum(-1) : inner;
  return t > 1 ? Sum(1) : t < -1 ? Sum(-1) : inner;
}

template <typename T>
__global__ void adder_conv2d_input_grad_direct_kernel(
    const T* __restrict__ grad_output, const T* __restrict__ input,
    const T* __restrict__ weight, T* __restrict__ grad_input, const Shape s,
    InputGradient form) {
  using Sum = typename SumType<T>::type;
  MMADDER_EACH(e, s.in_numel()) {  // (n, ic, ih, iw)
    const int iw = e % s.in_w;
    const int ih = e / s.in_w % s.in_h;
    const int ic = e / s.in_plane() % s.in_channels;
    const int64_t n = e / (s.in_plane() * s.in_channels);
    const int group = ic / s.in_per_group;
    const Sum x = convert<Sum>(input[e]);
    Sum sum = 0;
    for (int kh = 0; kh < s.kernel_h; ++kh) {
      const int64_t h = (int64_t)ih + s.pad_h - (int64_t)kh * s.dilation_h;
      if (h < 0 || h % s.stride_h != 0 || h / s.stride_h >= s.out_h)
        continue;
      for (int kw = 0; kw < s.kernel_w; ++kw) {
        const int64_t w = (int64_t)iw + s.pad_w - (int64_t)kw * s.dilation_w;
        if (w < 0 || w % s.stride_w != 0 || w / s.stride_w >= s.out_w)
          continue;
        const int64_t pixel = h / s.stride_h * s.out_w + w / s.stride_w;
        for (int m = 0; m < s.out_per_group; ++m) {
          const int64_t oc = (int64_t)group * s.out_per_group + m;
          const int64_t tap =
              ((oc * s.in_per_group + ic % s.in_per_group) * s.kernel_h + kh) *
                  s.kernel_w +
              kw;
          sum += convert<Sum>(
                     grad_output[(n * s.out_channels + oc) * s.out_plane() +
                                 pixel]) *
              surrogate(convert<Sum>(weight[tap]) - x, form);
        }
      }
    }
    grad_input[e] = convert<T>(sum);
  }
}

}  // namespace cuda
}  // namespace mmadder
