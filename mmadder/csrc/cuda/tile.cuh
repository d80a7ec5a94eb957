// Parts of the implicit GEMM that forward and input gradient share. Rows are
// channels of the result within a group, columns its pixels numbered through
// the batch, depth is k = tap * channels + channel of the summed image.
#pragma once

#include "device.cuh"

namespace mmadder {
namespace cuda {

// A block's share of the result, the depth of one step through shared memory,
// and the blocks that an SM is to hold (their registers must fit).
template <int ROWS, int PIXELS, int DEPTH, int THREAD_ROWS, int BLOCKS>
struct Tile {
  static constexpr int kRows = ROWS, kPixels = PIXELS, kDepth = DEPTH;
  static constexpr int kThreadRows = THREAD_ROWS, kThreadPixels = 8;
  static constexpr int kThreads = (ROWS / THREAD_ROWS) * (PIXELS / 8);
  static constexpr int kBlocksPerSm = BLOCKS;
};

// Warps are 4x8 threads. A thread owns its rows and pixels in chunks of 16
// bytes of shared memory, so every read is an LDS.128 without bank conflict.
template <typename Tile, typename Shared>
struct ThreadTile {
  static constexpr int C = kChunk<Shared>;
  static constexpr int kWarpRows = 4 * Tile::kThreadRows;
  static constexpr int kWarpPixels = 8 * Tile::kThreadPixels;
  static constexpr int kWarpsDown = Tile::kRows / kWarpRows;
  static constexpr int kThreadsDown = 4 * kWarpsDown;
  static_assert(
      Tile::kRows % kWarpRows == 0 && Tile::kPixels % kWarpPixels == 0 &&
          Tile::kThreadRows % C == 0 && Tile::kThreadPixels % C == 0,
      "a tile holds whole warps, a thread whole chunks");

  int first_row, first_pixel;

  __device__ __forceinline__ explicit ThreadTile(int thread) {
    const int warp = thread / 32, lane = thread % 32;
    first_row = warp % kWarpsDown * kWarpRows + lane / 8 * C;
    first_pixel = warp / kWarpsDown * kWarpPixels + lane % 8 * C;
  }
  // This thread among those that share its pixels, of kThreadsDown.
  __device__ __forceinline__ int place_down() const {
    return first_row / kWarpRows * 4 + first_row % kWarpRows / C;
  }
  __device__ __forceinline__ int row(int i) const {
    return first_row + i / C * (4 * C) + i % C;
  }
  __device__ __forceinline__ int pixel(int j) const {
    return first_pixel + j / C * (8 * C) + j % C;
  }
  // One depth of a shared tile into registers.
  __device__ __forceinline__ void read_rows(
      Shared (&out)[Tile::kThreadRows], const Shared* tile) const {
    read(out, tile + first_row, 4 * C);
  }
  __device__ __forceinline__ void read_pixels(
      Shared (&out)[Tile::kThreadPixels], const Shared* tile) const {
    read(out, tile + first_pixel, 8 * C);
  }

 private:
  template <int N>
  static __device__ __forceinline__ void read(
      Shared (&out)[N], const Shared* from, int step) {
    MMADDER_UNROLL for (int q = 0; q < N / C; ++q) {
      const auto chunk =
          *reinterpret_cast<const Vector<Shared, C>*>(from + q * step);
      MMADDER_UNROLL for (int e = 0; e < C; ++e) out[q * C + e] = chunk.v[e];
    }
  }
};

// The part of every image plane that is numbered: rows first_row, first_row +
// row_stride, ... and columns alike.
struct Grid {
  int h, w, first_row, first_col, row_stride, col_stride, image_w;

  __device__ __forceinline__ int plane() const { return h * w; }
};

struct Position {
  int image, row, col;
};

// Pixels of one block; only the first one needs a division in 64 bits.
struct BlockPixels {
  Grid grid;
  int first_image, first_in_plane;  // of pixel 0
  int count;

  // first: number of pixel 0 in the batch; at most `most` belong to the block.
  static __device__ __forceinline__ BlockPixels from(
      const Grid& grid, int64_t first, int images, int most) {
    const int image = (int)(first / grid.plane());
    const int64_t left = (int64_t)images * grid.plane() - first;
    return {grid, image, (int)(first - (int64_t)image * grid.plane()),
            left < most ? (int)left : most};
  }
  __device__ __forceinline__ bool has(int n) const { return n < count; }
  // Pixels that the block does not have repeat its first one.
  __device__ __forceinline__ Position at(int n) const {
    const int p = first_in_plane + (has(n) ? n : 0);
    const int image = p / grid.plane(), in_plane = p - image * grid.plane();
    const int i = in_plane / grid.w, j = in_plane - i * grid.w;
    return {first_image + image, grid.first_row + i * grid.row_stride,
            grid.first_col + j * grid.col_stride};
  }
};

// Position of a block in the work; see Blocks.
struct BlockIndex {
  int row_tile, pixel_tile, split, part;  // part: group and stride class

  __device__ __forceinline__ BlockIndex(unsigned block, const Blocks& blocks) {
    row_tile = block % blocks.row_tiles;
    block /= blocks.row_tiles;
    pixel_tile = block % blocks.pixel_tiles;
    block /= blocks.pixel_tiles;
    split = block % blocks.splits;
    part = block / blocks.splits;
  }
};

struct PlainStore {
  template <typename Out, int N>
  __device__ __forceinline__ void operator()(
      Out* to, const Vector<Out, N>& values) const {
    *reinterpret_cast<Vector<Out, N>*>(to) = values;
  }
};

// Writes a thread's results to out (images, channels, rows, columns), by
// store(address, Vector of one or four).
template <typename Tile, typename Shared, typename Out,
          typename Store = PlainStore>
__device__ __forceinline__ void write_tile(
    const float (&result)[Tile::kThreadRows][Tile::kThreadPixels],
    const ThreadTile<Tile, Shared>& mine, const BlockPixels& pixels, Out* out,
    int64_t plane, int channels, int first_channel, int rows,
    const Store& store = {}) {
  const Grid& grid = pixels.grid;
  // Four pixels of a row chunk then stay inside one image, and are aligned.
  const bool whole = grid.plane() % 4 == 0 && grid.row_stride == 1 &&
      grid.col_stride == 1;
  MMADDER_UNROLL for (int q = 0; q < Tile::kThreadPixels / 4; ++q) {
    if (whole && pixels.has(mine.pixel(4 * q))) {
      const Position at = pixels.at(mine.pixel(4 * q));
      Out* to = out + ((int64_t)at.image * channels + first_channel) * plane +
          at.row * grid.image_w + at.col;
      MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i) {
        Vector<Out, 4> four;
        MMADDER_UNROLL for (int e = 0; e < 4; ++e)
          four.v[e] = convert<Out>(result[i][4 * q + e]);
        if (mine.row(i) < rows)
          store(to + mine.row(i) * plane, four);
      }
    } else if (!whole) {
      MMADDER_UNROLL for (int j = 4 * q; j < 4 * q + 4; ++j) {
        if (!pixels.has(mine.pixel(j)))
          continue;
        const Position at = pixels.at(mine.pixel(j));
        Out* to = out +
            ((int64_t)at.image * channels + first_channel) * plane +
            at.row * grid.image_w + at.col;
        MMADDER_UNROLL for (int i = 0; i < Tile::kThreadRows; ++i)
          if (mine.row(i) < rows)
            store(to + mine.row(i) * plane,
                  Vector<Out, 1>{convert<Out>(result[i][j])});
      }
    }
  }
}

}  // namespace cuda
}  // namespace mmadder
