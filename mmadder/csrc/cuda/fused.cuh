// The forward of inference: norm, shortcut, ReLU, and centering, in the kernel
// that sums the distances. See Epilogue.
#pragma once

#include "elementwise.cuh"
#include "forward.cuh"

namespace mmadder {
namespace cuda {

// Sums over a block's rows of each of this thread's pixels, by way of shared
// memory that is free.
template <typename Tile>
__device__ __forceinline__ void sum_rows(
    float (&sums)[Tile::kThreadPixels],
    const float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, float>& mine, int rows, float* shared) {
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

// As adder_conv2d_forward_kernel, with what follows. residual is aligned to 16
// bytes. Where the depth is split, or a centered group has more rows than a
// tile, partial sums go to partial (splits, N, C_out, H_out, W_out), behind
// them, if centered, their sums over the rows of a block, (splits, row tiles,
// groups, N, H_out, W_out), and finish_kernel does the rest.
template <typename T, typename Shared, typename Tile, bool WHOLE_TAPS>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
adder_conv2d_fused_kernel(
    const T* __restrict__ input, const Shared* __restrict__ packed,
    float* __restrict__ output, float* __restrict__ partial, const Shape s,
    const PackedShape packing, const Window window, const Strides strides,
    const Blocks blocks, const Epilogue end) {
  MMADDER_SHARED(Shared, rows, 2 * Tile::kDepth * Tile::kRows);
  MMADDER_SHARED(Shared, pixels, 2 * Tile::kDepth * Tile::kPixels);
  MMADDER_SHARED(ForwardBlock, parked, 1);
  const ThreadTile<Tile, Shared> mine(threadIdx.x);
  static_assert(mine.kThreadsDown <= 2 * Tile::kDepth, "sums fit pixels");
  float result[Tile::kThreadRows][Tile::kThreadPixels];
  const ForwardBlock done = sum_distances<WHOLE_TAPS>(
      result, mine, rows, pixels, parked, input, packed, s, packing, window,
      strides, blocks);
  const int first_channel = done.group * s.out_per_group + done.first_row;
  const int rows_left = s.out_per_group - done.first_row;
  float sums[Tile::kThreadPixels];
  if (end.center)
    sum_rows(sums, result, mine, rows_left, pixels);

  if (partial) {
    write_tile(result, mine, done.pixels, partial + done.split * s.out_numel(),
               s.out_plane(), s.out_channels, first_channel, rows_left);
    if (!end.center || mine.place_down() > 0)
      return;
    const int64_t part =
        done.split * blocks.row_tiles + done.first_row / Tile::kRows;
    float* const to = partial + blocks.splits * s.out_numel() +
        (part * s.groups + done.group) * s.batch * s.out_plane() +
        done.pixels.first_image * s.out_plane() + done.pixels.first_in_plane;
    MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
      if (done.pixels.has(mine.pixel(j)))
        to[mine.pixel(j)] = sums[j];
    return;
  }

  if (end.center)
    MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j) {
      const float mean = sums[j] / s.out_per_group;
      MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
        result[i][j] -= mean;
    }
  MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
    if (mine.row(i) < rows_left) {
      const int channel = first_channel + mine.row(i);
      const float mean = end.mean[channel], scale = end.scale[channel];
      const float bias = end.bias[channel];
      MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
        result[i][j] = (result[i][j] - mean) * scale + bias;
    }
  write_tile(result, mine, done.pixels, output, s.out_plane(), s.out_channels,
             first_channel, rows_left, EpilogueStore{end, output});
}

// output from the partial results of adder_conv2d_fused_kernel, in their
// order.
template <typename T>
__global__ void finish_kernel(
    const float* __restrict__ partial, T* __restrict__ output, const Shape s,
    const Blocks blocks, const Epilogue end) {
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
