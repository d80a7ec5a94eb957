// What the drivers share: bands that threads work on, and packed images.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <new>
#include <vector>

#include "../geometry.h"
#include "kernels.h"

namespace mmadder::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

// Floats that are not initialized, aligned for any vector; grows on demand
// and then forgets what it held.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  float* get() const { return data_; }
  float* reserve(int64_t floats) {
    if (floats > size_) {
      release();
      data_ = static_cast<float*>(
          ::operator new(floats * sizeof(float), kAlignment, std::nothrow));
      TORCH_CHECK(data_, "adder_conv2d: no memory for ",
                  floats * sizeof(float), " bytes of a packed image");
      size_ = floats;
    }
    return data_;
  }

 private:
  void release() {
    ::operator delete(data_, kAlignment);
    data_ = nullptr;
    size_ = 0;
  }

  static constexpr std::align_val_t kAlignment{64};
  float* data_ = nullptr;
  int64_t size_ = 0;
};

// ------------------------------------------------------------------ bands --

// Some images, rows and columns of an output: what is done at a time.
struct Band {
  int64_t n, images, row, rows, column, columns;
  int64_t positions() const { return images * rows * columns; }
};

// As many positions as the caches like.
constexpr int64_t kBandPositions = 1024;
// Packed weights of a chunk of blocks, which stay in the first-level cache.
constexpr int64_t kChunkBytes = 20 * 1024;

inline int64_t chunk_blocks(int64_t block_bytes) {
  return std::max<int64_t>(kChunkBytes / block_bytes, 1);
}

// The next chunk's weights follow in memory. Where an image is small, they
// come from far away for few positions: ask for them ahead, some per tile.
class WeightsAhead {
 public:
  // Of a chunk from `begin` to `end`, which that many tiles read.
  WeightsAhead(const void* begin, const void* end, int64_t tiles)
      : next_(static_cast<const char*>(end)),
        end_(next_ + (next_ - static_cast<const char*>(begin))),
        lines_((end_ - next_ + tiles * kLine - 1) / (tiles * kLine)) {}

  void fetch() {
    for (int64_t i = 0; i < lines_ && next_ < end_; ++i, next_ += kLine)
      __builtin_prefetch(next_);
  }

 private:
  static constexpr int64_t kLine = 64;  // bytes of the caches'

  const char* next_;
  const char* const end_;
  const int64_t lines_;  // for a tile
};

// Bands of about `positions` positions; small images share one.
inline std::vector<Band> make_bands(
    int64_t batch, int64_t rows, int64_t columns, int64_t positions) {
  const int64_t image = rows * columns;
  const int64_t images =
      std::clamp<int64_t>(positions / std::max<int64_t>(image, 1), 1, batch);
  const int64_t row_parts =
      std::clamp<int64_t>(ceil_div(image, positions), 1, rows);
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

// Several bands for each thread; one at least if a band stays whole.
inline int64_t band_positions(int64_t positions, bool whole) {
  const int64_t threads = at::get_num_threads();
  const int64_t least =
      whole ? std::clamp<int64_t>(ceil_div(positions, threads), 1, 64) : 64;
  return threads == 1
      ? kBandPositions
      : std::clamp<int64_t>(positions / (4 * threads), least, kBandPositions);
}

// In how many parts to cut `blocks` of channels so that `tasks` bands become
// work for all threads, although each part packs its band again.
inline int64_t channel_parts(int64_t tasks, int64_t blocks) {
  const int64_t threads = at::get_num_threads();
  return threads == 1
      ? 1
      : std::clamp<int64_t>(ceil_div(4 * threads, tasks), 1, blocks);
}

// Some blocks of channels of one band and group.
struct Task {
  const Band& band;
  int64_t group, first_block, last_block;
};

// Runs run(worker, task) until a result of (batch, groups, blocks of channels,
// rows, columns) is done. A thread has a worker of its own and takes the next
// task when it is free. With `whole` a task has all blocks of its group. The
// workers keep their buffers; more are added for more threads.
template <typename Worker, typename Run>
void for_each_task(
    std::deque<Worker>& workers, int64_t batch, int64_t groups, int64_t blocks,
    bool whole, int64_t rows, int64_t columns, const Run& run,
    int64_t most_positions = kBandPositions) {
  const auto bands = make_bands(
      batch, rows, columns,
      std::min(band_positions(batch * rows * columns, whole), most_positions));
  const int64_t pieces = static_cast<int64_t>(bands.size()) * groups;
  const int64_t parts = whole ? 1 : channel_parts(pieces, blocks);
  const int64_t tasks = pieces * parts;
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), tasks);
  while (static_cast<int64_t>(workers.size()) < threads)
    workers.emplace_back();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t) {
    Worker& worker = workers[first];
    for (int64_t i = next++; i < tasks; i = next++) {
      const int64_t part = i % parts, band = i / parts;
      run(worker,
          Task{bands[band / groups], band % groups, part * blocks / parts,
               (part + 1) * blocks / parts});
    }
  });
}

// Calls visit(first, count, n, oh) for each run of a band's positions that lie
// side by side in an output, whose first one is (n, oh, band.column).
template <typename Visit>
void for_each_run(const Band& band, int64_t out_w, const Visit& visit) {
  const bool whole_rows = band.columns == out_w;
  const int64_t runs = band.images * (whole_rows ? 1 : band.rows);
  const int64_t count = band.positions() / runs;
  for (int64_t i = 0; i < runs; ++i)
    visit(i * count, count, band.n + (whole_rows ? i : i / band.rows),
          band.row + (whole_rows ? 0 : i % band.rows));
}

// Calls visit(n, block, row) for all rows of maps in blocks of channels, whose
// rows have that many elements.
template <typename Visit>
void for_each_row(int64_t batch, int64_t blocks, int64_t height, int64_t row,
                  const Visit& visit) {
  const int64_t grain =
      std::max<int64_t>((1 << 14) / std::max<int64_t>(row, 1), 1);
  at::parallel_for(
      0, batch * blocks * height, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t plane = i / height;
          visit(plane / blocks, plane % blocks, i % height);
        }
      });
}

// A pooling's windows, whose padding does not count.
struct Window {
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

// Calls pool(begin, rows, inside, columns, c, positions) for a row of windows
// over height x width pixels: from column c on that many positions see rows
// from `begin` and columns from `inside` on.
template <typename Pool>
void for_each_window(const Window& w, int64_t height, int64_t width,
                     int64_t row, int64_t out_w, const Pool& pool) {
  // Columns whose windows lie inside.
  const int64_t first = std::min(ceil_div(w.pad_w, w.stride_w), out_w);
  const int64_t last = std::clamp<int64_t>(
      floor_div(width + w.pad_w - w.kernel_w, w.stride_w) + 1, first, out_w);
  const int64_t top = row * w.stride_h - w.pad_h;
  const int64_t begin = std::max<int64_t>(top, 0);
  const int64_t rows = std::min(top + w.kernel_h, height) - begin;
  const auto pool_from = [&](int64_t c, int64_t positions) {
    const int64_t left = c * w.stride_w - w.pad_w;
    const int64_t inside = std::max<int64_t>(left, 0);
    const int64_t columns = std::min(left + w.kernel_w, width) - inside;
    pool(begin, rows, inside, columns, c, positions);
  };
  for (int64_t c = 0; c < first; ++c)
    pool_from(c, 1);
  if (first < last)
    pool_from(first, last - first);
  for (int64_t c = last; c < out_w; ++c)
    pool_from(c, 1);
}

// ---------------------------------------------------------------- packing --

inline int64_t num_blocks(int64_t channels) {
  return ceil_div(channels, kBlock);
}
// Channels of a block that count: those there are, filled up to quads.
inline int64_t padded_channels(int64_t channels, int64_t block) {
  const int64_t used = std::min<int64_t>(channels - block * kBlock, kBlock);
  return ceil_div(used, kQuad) * kQuad;
}

// Channels of an image in memory; strides in floats.
struct ImageView {
  const float* data;
  int64_t channels, height, width;
  int64_t channel_stride, row_stride, column_stride;
};

// A rectangle of an image in whole coordinates. What lies outside is zero.
// With `phases` > 1 the columns of a row lie in this order: each phases-th
// from the first one, then each phases-th from the second one, ..., so that
// the columns that a strided window meets are neighbours.
struct Region {
  int64_t row, rows, column, columns, phases = 1;

  int64_t phase_columns() const { return ceil_div(columns, phases); }
  int64_t row_pixels() const { return phase_columns() * phases; }
  int64_t pixels() const { return rows * row_pixels(); }
  int64_t plane() const { return pixels() * kBlock; }  // floats
  int64_t pixel(int64_t r, int64_t c) const {
    return r * row_pixels() + c % phases * phase_columns() + c / phases;
  }
};

// The part of an input that the windows of a band of outputs see.
inline Region seen_region(const Conv2dGeometry& g, const Band& band) {
  const auto extent =
      [](int64_t count, int64_t stride, int64_t kernel, int64_t dilation) {
        return (count - 1) * stride + (kernel - 1) * dilation + 1;
      };
  return {band.row * g.stride_h - g.pad_h,
          extent(band.rows, g.stride_h, g.kernel_h, g.dilation_h),
          band.column * g.stride_w - g.pad_w,
          extent(band.columns, g.stride_w, g.kernel_w, g.dilation_w),
          band.columns > 1 ? g.stride_w : 1};
}

// One step for each tap of each block of input channels: blocks are `plane`
// and pixels `pixel` apart, quads(block) counts what is summed of a block.
template <typename Quads>
void find_steps(
    const Conv2dGeometry& g, const Region& region, int64_t blocks,
    int64_t plane, int64_t pixel, const Quads& quads,
    std::vector<Step>& steps) {
  steps.clear();
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t kh = 0; kh < g.kernel_h; ++kh)
      for (int64_t kw = 0; kw < g.kernel_w; ++kw)
        steps.push_back(
            {b * plane +
                 region.pixel(kh * g.dilation_h, kw * g.dilation_w) * pixel,
             quads(b)});
}

// Floats of `blocks` blocks of a region; an error if windows far apart make it
// too large to be meant.
inline int64_t packed_floats(const Region& region, int64_t blocks) {
  const double floats = double(region.rows) * double(region.row_pixels()) *
      double(blocks) * kBlock;
  TORCH_CHECK(
      floats < 1e12, "adder_conv2d: a packed image of ", region.rows, " x ",
      region.columns,
      " pixels is too large; are stride, dilation or padding "
      "meant?");
  return static_cast<int64_t>(floats);
}

// Packs a region, less a shift for each channel, to [block][pixel][16].
// shift: (16 * blocks); borders are 0 - shift, missing channels 0 - shift.
inline void pack_region(
    const Kernels& kernels, const ImageView& image, const Region& region,
    const float* shift, float* packed) {
  const int64_t first = std::clamp<int64_t>(-region.column, 0, region.columns);
  const int64_t last =
      std::clamp<int64_t>(image.width - region.column, first, region.columns);
  for (int64_t b = 0; b < num_blocks(image.channels); ++b) {
    const int64_t used =
        std::min<int64_t>(image.channels - b * kBlock, kBlock);
    const float* s = shift + b * kBlock;
    float border[kBlock];
    for (int i = 0; i < kBlock; ++i)
      border[i] = 0.f - s[i];
    for (int64_t r = 0; r < region.rows; ++r) {
      float* out = packed + b * region.plane();
      const auto at = [&](int64_t c) {
        return out + region.pixel(r, c) * kBlock;
      };
      const auto fill = [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c)
          std::memcpy(at(c), border, sizeof(border));
      };
      const int64_t row = region.row + r;
      if (row < 0 || row >= image.height) {
        fill(0, region.columns);
        continue;
      }
      fill(0, first);
      fill(last, region.columns);
      const float* in = image.data + b * kBlock * image.channel_stride +
          row * image.row_stride + region.column * image.column_stride;
      for (int64_t c = first; c < last; c += kBlock) {
        const int64_t count = std::min<int64_t>(last - c, kBlock);
        float tile[kBlock * kBlock];
        float* dst = region.phases == 1 ? at(c) : tile;
        if (image.column_stride == 1)
          kernels.transpose(in + c, image.channel_stride, used, count, s, dst);
        else  // channels are neighbours
          for (int64_t i = 0; i < count; ++i)
            for (int64_t k = 0; k < kBlock; ++k)
              dst[i * kBlock + k] =
                  (k < used ? in[(c + i) * image.column_stride + k] : 0.f) -
                  s[k];
        if (region.phases > 1)
          for (int64_t i = 0; i < count; ++i)
            std::memcpy(at(c + i), tile + i * kBlock, sizeof(border));
      }
    }
  }
}

}  // namespace mmadder::cpu
