// Forward of the adder convolution, Y = -sum |X - W|, by tiles.
#pragma once

#include "epilogue.cuh"
#include "loader.cuh"

namespace mmadder {
namespace cuda {

// result -= |pixel - row| over the depth of one tile in shared memory.
template <typename Tile>
__device__ __forceinline__ void subtract_distances(
    float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, float>& mine, const float* rows,
    const float* pixels) {
  MMADDER_UNROLL for (int k = 0; k < Tile::kDepth; ++k) {
    float w[Tile::kThreadRows], x[Tile::kThreadPixels];
    mine.read_rows(w, rows + k * Tile::kRows);
    mine.read_pixels(x, pixels + k * Tile::kPixels);
    MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
      MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
        result[i][j] -= fabsf(x[j] - w[i]);
  }
}

// The same on pairs of float16: sums of one tile in float16, then added in
// float32. A sum that overflows belongs to a result that does so, too, since
// no term is negative; not where results are centered, which have no pairs.
template <typename Tile>
__device__ __forceinline__ void subtract_distances(
    float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, __half>& mine, const __half* rows,
    const __half* pixels) {
  constexpr int kPairs = Tile::kThreadPixels / 2;
  __half2 sums[Tile::kThreadRows][kPairs];
  MMADDER_UNROLL for (int k = 0; k < Tile::kDepth; ++k) {
    __half w[Tile::kThreadRows], x[Tile::kThreadPixels];
    mine.read_rows(w, rows + k * Tile::kRows);
    mine.read_pixels(x, pixels + k * Tile::kPixels);
    MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
      MMADDER_UNROLL for (int j = 0; j < kPairs; ++j) {
        const __half2 distance = __habs2(__hsub2(
            __halves2half2(x[2 * j], x[2 * j + 1]), __half2half2(w[i])));
        sums[i][j] = k == 0 ? distance : __hadd2(sums[i][j], distance);
      }
  }
  MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
    MMADDER_UNROLL for (int j = 0; j < kPairs; ++j) {
      result[i][2 * j] -= __low2float(sums[i][j]);
      result[i][2 * j + 1] -= __high2float(sums[i][j]);
    }
}

// What a block computes.
struct ForwardBlock {
  int group, first_row, split;
  BlockPixels pixels;
};

template <typename Tile>
__device__ __forceinline__ ForwardBlock forward_block(
    const Shape& s, const Blocks& blocks) {
  const BlockIndex index(blockIdx.x, blocks);
  return {index.part, index.row_tile * Tile::kRows, index.split,
          BlockPixels::from(Grid{s.out_h, s.out_w, 0, 0, 1, 1, s.out_w},
                            (int64_t)index.pixel_tile * Tile::kPixels, s.batch,
                            Tile::kPixels)};
}

// Sums a block's share of the distances into result. rows and pixels are two
// buffers each in shared memory, parked keeps what this returns: in registers
// it would not leave the loop enough of them.
template <bool WHOLE_TAPS, typename T, typename Shared, typename Tile>
__device__ __forceinline__ ForwardBlock sum_distances(
    float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, Shared>& mine, Shared* rows, Shared* pixels,
    ForwardBlock* parked, const T* input, const Shared* packed, const Shape& s,
    const PackedShape& packing, const Window& window, const Strides& strides,
    const Blocks& blocks) {
  constexpr int D = Tile::kDepth;
  const ForwardBlock block = forward_block<Tile>(s, blocks);
  if (threadIdx.x == 0)
    parked[0] = block;
  const int tiles = ((int)s.taps() * s.in_per_group + D - 1) / D;
  const int tile_begin = (int64_t)tiles * block.split / blocks.splits;
  const int tile_end = (int64_t)tiles * (block.split + 1) / blocks.splits;

  Loader<T, Shared, Tile, WHOLE_TAPS> loader(
      window, strides, rows, pixels, threadIdx.x);
  const Position at = block.pixels.at(loader.pixel());
  loader.start(
      packed + (int64_t)block.group * packing.depth * packing.pitch +
          block.first_row,
      packing.pitch,
      input +
          ((int64_t)at.image * s.in_channels + block.group * s.in_per_group) *
              s.in_plane(),
      at.row * s.stride_h - s.pad_h, at.col * s.stride_w - s.pad_w,
      tile_begin);

  MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
    MMADDER_UNROLL for (int j = 0; j < Tile::kThreadPixels; ++j)
      result[i][j] = 0.f;

  loader.fetch(0);
  loader.store(0);
  __syncthreads();
  int current = 0;
  MMADDER_NO_UNROLL for (int left = tile_end - tile_begin; left > 0; --left) {
    loader.fetch(current ^ 1);
    subtract_distances(result, mine, rows + current * D * Tile::kRows,
                       pixels + current * D * Tile::kPixels);
    loader.store(current ^ 1);
    __syncthreads();
    current ^= 1;
  }
  return parked[0];
}

// input (N, C_in, H, W), packed by pack_forward_kernel, output (N, C_out,
// H_out, W_out); a residual of end is aligned to 16 bytes. Where the depth is
// split, or a centered group has more rows than a tile, partial sums go to
// partial (splits, N, C_out, H_out, W_out), behind them, if centered, their
// sums over the rows of a block, (splits, row tiles, groups, N, H_out, W_out),
// and finish_kernel does the rest.
template <typename T, typename Shared, typename Tile, bool WHOLE_TAPS,
          typename End>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
adder_conv2d_forward_kernel(
    const T* __restrict__ input, const Shared* __restrict__ packed,
    T* __restrict__ output, float* __restrict__ partial, const Shape s,
    const PackedShape packing, const Window window, const Strides strides,
    const Blocks blocks, const End end) {
  MMADDER_SHARED(Shared, rows, 2 * Tile::kDepth * Tile::kRows);
  MMADDER_SHARED(Shared, pixels, 2 * Tile::kDepth * Tile::kPixels);
  MMADDER_SHARED(ForwardBlock, parked, 1);
  const ThreadTile<Tile, Shared> mine(threadIdx.x);
  static_assert(
      mine.kThreadsDown * sizeof(float) <= 2 * Tile::kDepth * sizeof(Shared),
      "sums of rows fit pixels");
  float result[Tile::kThreadRows][Tile::kThreadPixels];
  const ForwardBlock done = sum_distances<WHOLE_TAPS>(
      result, mine, rows, pixels, parked, input, packed, s, packing, window,
      strides, blocks);
  const int first_channel = done.group * s.out_per_group + done.first_row;
  const int rows_left = s.out_per_group - done.first_row;
  float sums[Tile::kThreadPixels];
  if (end.center)
    sum_rows(
        sums, result, mine, rows_left, reinterpret_cast<float*>(pixels));

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
  normalize(result, mine, first_channel, rows_left, end);
  write_tile(result, mine, done.pixels, output, s.out_plane(), s.out_channels,
             first_channel, rows_left, store_of(end, output));
}

}  // namespace cuda
}  // namespace mmadder
