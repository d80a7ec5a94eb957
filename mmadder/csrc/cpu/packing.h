// Cuts an image into bands that threads work on, and packs bands.
#pragma once

#include <algorithm>
#include <new>
#include <vector>

#include <ATen/Parallel.h>

#include "../geometry.h"
#include "kernels.h"

namespace mmadder::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

// A 1x1 convolution without stride or padding sees one long row.
inline Conv2dGeometry flattened(Conv2dGeometry g) {
  if (g.taps() == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad_h == 0 &&
      g.pad_w == 0) {
    g.in_w = g.out_w = g.in_h * g.in_w;
    g.in_h = g.out_h = 1;
  }
  return g;
}

// Some images, rows and columns of an output: what one thread does at a time.
struct Band {
  int64_t n, images, row, rows, column, columns;
  int64_t positions() const { return images * rows * columns; }
};

// Bands of about `positions` positions; small images share one.
inline std::vector<Band> make_bands(
    int64_t batch, int64_t rows, int64_t columns, int64_t positions) {
  const int64_t image = rows * columns;
  const int64_t images =
      std::clamp<int64_t>(positions / std::max<int64_t>(image, 1), 1, batch);
  const int64_t row_parts = std::clamp<int64_t>(image / positions, 1, rows);
  const int64_t column_parts =
      std::clamp<int64_t>(image / row_parts / positions, 1, columns);
  std::vector<Band> bands;
  for (int64_t n = 0; n < batch; n += images)
    for (int64_t r = 0; r < row_parts; ++r)
      for (int64_t c = 0; c < column_parts; ++c) {
        const int64_t row = r * rows / row_parts;
        const int64_t column = c * columns / column_parts;
        bands.push_back(
            {n, std::min(images, batch - n), row,
             (r + 1) * rows / row_parts - row, column,
             (c + 1) * columns / column_parts - column});
      }
  return bands;
}

// Bands as large as the caches like, but a few for each of several threads.
inline int64_t band_positions(int64_t positions, int64_t most) {
  const int64_t threads = at::get_num_threads();
  return threads == 1
      ? most
      : std::clamp<int64_t>(positions / (3 * threads), 64, most);
}

// Floats that are not initialized, aligned for any vector.
class Buffer {
 public:
  explicit Buffer(int64_t floats)
      : data_(static_cast<float*>(::operator new(
            std::max<int64_t>(floats, 1) * sizeof(float), kAlignment))) {}
  ~Buffer() { ::operator delete(data_, kAlignment); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  float* get() { return data_; }
  const float* get() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  float* data_;
};

// A rectangle of an image in whole coordinates; what lies outside is zero.
struct Region {
  int64_t row, rows, column, columns;
  int64_t plane() const { return rows * columns * kBlock; }
};

inline int64_t num_blocks(int64_t channels) {
  return ceil_div(channels, kBlock);
}
inline int64_t num_quads(int64_t channels, int64_t block) {
  return ceil_div(std::min<int64_t>(channels - block * kBlock, kBlock), kQuad);
}

// Packs a (channels, height, width) image's region to
// [block][row][column][16].
inline void pack_region(
    const Kernels& kernels, const float* image, int64_t channels,
    int64_t height, int64_t width, const Region& region, float* packed) {
  const int64_t first = std::clamp<int64_t>(-region.column, 0, region.columns);
  const int64_t last = std::clamp<int64_t>(
      width - region.column, first, region.columns);
  for (int64_t b = 0; b < num_blocks(channels); ++b) {
    const int64_t used = std::min<int64_t>(channels - b * kBlock, kBlock);
    for (int64_t r = 0; r < region.rows; ++r) {
      float* out = packed + (b * region.rows + r) * region.columns * kBlock;
      const int64_t row = region.row + r;
      if (row < 0 || row >= height || used < kBlock)
        std::fill(out, out + region.columns * kBlock, 0.f);
      if (row < 0 || row >= height)
        continue;
      std::fill(out, out + first * kBlock, 0.f);
      std::fill(out + last * kBlock, out + region.columns * kBlock, 0.f);
      const float* in =
          image + (b * kBlock * height + row) * width + region.column;
      for (int64_t c = first; c < last; c += kBlock)
        kernels.transpose(
            in + c, height * width, out + c * kBlock, kBlock, used,
            std::min<int64_t>(last - c, kBlock), 1.f);
    }
  }
}

}  // namespace mmadder::cpu
