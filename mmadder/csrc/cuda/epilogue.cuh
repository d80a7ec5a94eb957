// What follows the sums of distances in their kernel: centering, and in
// inference norm, shortcut and ReLU. See Epilogue.
#pragma once

#include "elementwise.cuh"
#include "tile.cuh"

namespace mmadder {
namespace cuda {

// Sums over a block's rows of each of this thread's pixels, by way of shared
// memory that is free: kThreadsDown * kPixels floats.
template <typename Tile, typename Shared>
__device__ __forceinline__ void sum_rows(
    float (&sums)[Tile::kThreadPixels],
    const float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, Shared>& mine, int rows, float* shared) {
  MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j) {
    float sum = 0.f;
    MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
      if (mine.row(i) < rows)
        sum += result[i][j];
    shared[mine.place_down() * Tile::kPixels + mine.pixel(j)] = sum;
  }
  __syncthreads();
  MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j) {
    sums[j] = 0.f;
    for (int place = 0; place < mine.kThreadsDown; ++place)
      sums[j] += shared[place * Tile::kPixels + mine.pixel(j)];
  }
}

// Ends with shortcut and ReLU.
struct EpilogueStore {
  const Epilogue& end;
  const float* output;

  template <int N>
  __device__ __forceinline__ void operator()(
      float* to, Vector<float, N> values) const {
    if (end.residual) {
      const auto shortcut = *reinterpret_cast<const Vector<float, N>*>(
          end.residual + (to - output));
      MMADDER_UNROLL for (int e = 0; e < N; ++e) values.v[e] += shortcut.v[e];
    }
    MMADDER_UNROLL for (int e = 0; e < N; ++e)
      values.v[e] = end.rectified(values.v[e]);
    *reinterpret_cast<Vector<float, N>*>(to) = values;
  }
};

template <typename T>
__device__ __forceinline__ PlainStore store_of(const NoEpilogue&, const T*) {
  return {};
}
__device__ __forceinline__ EpilogueStore
store_of(const Epilogue& end, const float* output) {
  return {end, output};
}

// The norm of inference; shortcut and ReLU are the store's.
template <typename Tile, typename Shared>
__device__ __forceinline__ void normalize(
    float (&)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, Shared>&, int, int, const NoEpilogue&) {}
template <typename Tile, typename Shared>
__device__ __forceinline__ void normalize(
    float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, Shared>& mine, int first_channel, int rows,
    const Epilogue& end) {
  MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
    if (mine.row(i) < rows) {
      const int channel = first_channel + mine.row(i);
      const float mean = end.mean[channel], scale = end.scale[channel];
      const float bias = end.bias[channel];
      MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
        result[i][j] = (result[i][j] - mean) * scale + bias;
    }
}

// output from the partial results of adder_conv2d_forward_kernel, in their
// order.
template <typename T, typename End>
__global__ void finish_kernel(
    const float* __restrict__ partial, T* __restrict__ output, const Shape s,
    const Blocks blocks, const End end) {
  const int64_t numel = s.out_numel(), plane = s.out_plane();
  const int64_t positions = s.batch * plane;
  const float* const row_sums = partial + blocks.splits * numel;
  MMADDER_EACH(e, numel) {  // (n, oc, oh, ow)
    const int64_t n = e / plane / s.out_channels;
    const int channel = e / plane % s.out_channels;
    float sum = 0.f;
    for (int split = 0; split < blocks.splits; ++split)
      sum += partial[split * numel + e];
    if (end.center) {
      const float* from = row_sums +
          channel / s.out_per_group * positions + n * plane + e % plane;
      float total = 0.f;
      for (int part = 0; part < blocks.splits * blocks.row_tiles; ++part)
        total += from[part * (s.groups * positions)];
      sum -= total / s.out_per_group;
    }
    output[e] = convert<T>(end(sum, channel, e));
  }
}

}  // namespace cuda
}  // namespace mmadder
