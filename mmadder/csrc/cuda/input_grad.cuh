// Input gradient of the adder convolution by tiles: dX = sum g * f(W - X)
// over all outputs that X is part of, f = clip(., -1, 1) or sign.
#pragma once

#include "loader.cuh"

namespace mmadder {
namespace cuda {

// Both forms are f(t) = 2 * s - 1 with s in [0, 1], so that s is one saturated
// instruction and dX = 2 * sum g * s - sum g. The error is of the order of
// sum |g|, not of |dX|. A saturated instruction turns NaN into 0.
template <InputGradient FORM>
struct Saturated;

template <>
struct Saturated<InputGradient::kHardtanh> {  // s = sat((W/2 + 1/2) - X/2)
  static constexpr float kScale = 0.5f, kShift = 0.5f;  // of packed weights
  static __device__ __forceinline__ float of(float w, float x) {
    return __saturatef(w - x);
  }
};

template <>
struct Saturated<InputGradient::kSign> {  // s = sat(2^126 (W - X) + 1/2)
  static constexpr float kScale = 1.f, kShift = 0.f;
  // Steep enough for every normal difference; 0 gives exactly 1/2.
  static __device__ __forceinline__ float of(float w, float x) {
    return __saturatef(fmaf(w - x, 0x1p126f, 0.5f));
  }
};

// grad_output (N, C_out, H_out, W_out), input and grad_input (N, C_in, H, W),
// packed by pack_input_grad_kernel, one set of taps per stride class. With
// several splits of the depth, partial sums go to partial
// (splits, N, C_in, H, W).
template <typename T, typename Tile, bool WHOLE_TAPS, InputGradient FORM>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    adder_conv2d_input_grad_kernel(
        const T* __restrict__ grad_output, const T* __restrict__ input,
        const float* __restrict__ packed, T* __restrict__ grad_input,
        float* __restrict__ partial, const Shape s, const PackedShape packing,
        Window window, const Strides strides, const Blocks blocks) {
  constexpr int D = Tile::kDepth;
  using TileLoader = Loader<T, float, Tile, WHOLE_TAPS>;
  using Form = Saturated<FORM>;
  MMADDER_SHARED(float, rows, 2 * D * Tile::kRows);
  MMADDER_SHARED(float, pixels, 2 * D * Tile::kPixels);
  MMADDER_SHARED(float, sums, Tile::kThreads);

  const BlockIndex block(blockIdx.x, blocks);
  const int group = block.part / packing.classes();
  const int stride_class = block.part % packing.classes();
  const int class_h = stride_class / packing.classes_w;
  const int class_w = stride_class % packing.classes_w;
  const int first_row = block.row_tile * Tile::kRows;
  // clang-format off
  const Grid grid{
      (s.in_h - class_h + s.stride_h - 1) / s.stride_h,
      (s.in_w - class_w + s.stride_w - 1) / s.stride_w, class_h, class_w,
      s.stride_h, s.stride_w, s.in_w};
  // clang-format on
  const int64_t first_pixel = (int64_t)block.pixel_tile * Tile::kPixels;
  if (first_pixel >= (int64_t)s.batch * grid.plane())
    return;  // the whole block: classes differ by a row or a column
  const auto here =
      BlockPixels::from(grid, first_pixel, s.batch, Tile::kPixels);

  const TapSeries taps_h =
      tap_series(class_h, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
  const TapSeries taps_w =
      tap_series(class_w, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w);
  const int tiles =
      (taps_h.count * taps_w.count * s.out_per_group + D - 1) / D;
  const int tile_begin = (int64_t)tiles * block.split / blocks.splits;
  const int tile_end = (int64_t)tiles * (block.split + 1) / blocks.splits;

  window.set_taps(taps_h.count, taps_w.count);
  TileLoader loader(window, strides, rows, pixels, threadIdx.x);
  const Position at = here.at(loader.pixel());

  const ThreadTile<Tile, float> mine(threadIdx.x);
  float result[Tile::kThreadRows][Tile::kThreadPixels];
  float x[Tile::kThreadRows][Tile::kThreadPixels];
  const int left_rows = s.in_per_group - first_row;
  MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j) {
    const Position p = here.at(mine.pixel(j));
    const T* from = input +
        ((int64_t)p.image * s.in_channels + group * s.in_per_group +
         first_row) * s.in_plane() +
        p.row * s.in_w + p.col;
    MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i) {
      result[i][j] = 0.f;
      x[i][j] = mine.row(i) < left_rows
          ? Form::kScale * convert<float>(from[mine.row(i) * s.in_plane()])
          : 0.f;
    }
  }

  float grad_sum = 0.f;  // of what this thread fetches for its pixel
  if (tile_begin < tile_end) {
    loader.start(
        packed + (int64_t)block.part * packing.depth * packing.pitch +
            first_row,
        packing.pitch,
        grad_output +
            ((int64_t)at.image * s.out_channels + group * s.out_per_group) *
                s.out_plane(),
        // exact, since there is a tap
        (at.row + s.pad_h - taps_h.first * s.dilation_h) / s.stride_h,
        (at.col + s.pad_w - taps_w.first * s.dilation_w) / s.stride_w,
        tile_begin);
    loader.fetch(0);
    loader.store(0);
  }
  __syncthreads();
  int current = 0;
  MMADDER_NO_UNROLL for (int left = tile_end - tile_begin; left > 0; --left) {
    loader.fetch(current ^ 1);
    grad_sum += loader.stored_sum(current);
    MMADDER_UNROLL for (int k = 0; k < D; ++k) {
      float w[Tile::kThreadRows], g[Tile::kThreadPixels];
      mine.read_rows(w, rows + (current * D + k) * Tile::kRows);
      mine.read_pixels(g, pixels + (current * D + k) * Tile::kPixels);
      MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
        MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
          result[i][j] =
              fmaf(g[j], Form::of(w[i], x[i][j]), result[i][j]);
    }
    loader.store(current ^ 1);
    __syncthreads();
    current ^= 1;
  }
  sums[threadIdx.x] = grad_sum;
  __syncthreads();

  MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j) {
    float total = 0.f;
    MMADDER_UNROLL for (int q = 0; q < TileLoader::kStep; ++q)
      total += sums[q * Tile::kPixels + mine.pixel(j)];
    MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
      result[i][j] = x[i][j] == x[i][j] || tiles == 0
          ? fmaf(2.f, result[i][j], -total)
          : x[i][j];  // NaN
  }
  const auto write = [&](auto* out) {
    write_tile(result, mine, here, out, s.in_plane(), s.in_channels,
               group * s.in_per_group + first_row, left_rows);
  };
  float* const share = partial + block.split * s.in_numel();
  if constexpr (is_same<T, float>)
    write(partial ? share : grad_input);
  else if (partial)
    write(share);
  else
    write(grad_input);
}

}  // namespace cuda
}  // namespace mmadder
