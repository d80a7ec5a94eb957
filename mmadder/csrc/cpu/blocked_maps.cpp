#include "blocked_maps.h"

#include "packing.h"

namespace mmadder::cpu {
namespace {

template <typename Visit>
void for_each_row(const BlockedMap& map, const Visit& visit) {
  cpu::for_each_row(map.batch, map.blocks(), map.height, map.row(), visit);
}

// Pools rows of planes: row_of(n, block, row) is the address of a row.
template <typename Row>
void max_pool(
    const Row& row_of, int64_t row_stride, int64_t column_stride,
    int64_t height, int64_t width, const Window& w, bool relu,
    const BlockedMap& output) {
  const auto kernel = kernels().max_pool;
  for_each_row(output, [&](int64_t n, int64_t block, int64_t row) {
    for_each_window(
        w, height, width, row, output.width,
        [&](int64_t begin, int64_t rows, int64_t inside, int64_t columns,
            int64_t c, int64_t positions) {
          kernel(row_of(n, block, begin) + inside * column_stride, row_stride,
                 column_stride, rows, columns, w.stride_w * column_stride,
                 positions, relu, output.at(n, block, row, c));
        });
  });
}

}  // namespace

void read_map(const Images& images, const BlockedMap& output) {
  static constexpr float no_shift[kBlock] = {};
  const Kernels& kernels = cpu::kernels();
  for_each_row(output, [&](int64_t n, int64_t block, int64_t row) {
    const int64_t first = block * kBlock;
    pack_region(
        kernels,
        {images.data + n * images.batch_stride +
             first * images.channel_stride + row * images.row_stride,
         std::min<int64_t>(output.channels - first, kBlock), 1, output.width,
         images.channel_stride, images.row_stride, images.column_stride},
        {0, 1, 0, output.width}, no_shift, output.at(n, block, row, 0));
  });
}

void write_map(const BlockedMap& map, float* output) {
  static constexpr float no_shift[kBlock] = {};
  const Kernels& kernels = cpu::kernels();
  const int64_t plane = map.height * map.width;
  for_each_row(map, [&](int64_t n, int64_t block, int64_t row) {
    const int64_t first = block * kBlock;
    const int64_t channels = std::min<int64_t>(map.channels - first, kBlock);
    float* out = output + (n * map.channels + first) * plane + row * map.width;
    for (int64_t c = 0; c < map.width; c += kBlock) {
      const int64_t columns = std::min<int64_t>(map.width - c, kBlock);
      float tile[kBlock * kBlock];
      kernels.transpose(
          map.at(n, block, row, c), kBlock, columns, channels, no_shift, tile);
      for (int64_t k = 0; k < channels; ++k)
        std::memcpy(
            out + k * plane + c, tile + k * kBlock, columns * sizeof(float));
    }
  });
}

void max_pool_blocked(
    const BlockedMap& input, const Window& window, const BlockedMap& output) {
  max_pool(
      [&](int64_t n, int64_t block, int64_t row) {
        return input.at(n, block, row, 0);
      },
      input.row(), kBlock, input.height, input.width, window, false, output);
}

void max_pool_images(
    const Images& images, int64_t height, int64_t width, const Window& window,
    bool relu, const BlockedMap& output) {
  max_pool(
      [&](int64_t n, int64_t block, int64_t row) {
        return images.data + n * images.batch_stride + block * kBlock +
            row * images.row_stride;
      },
      images.row_stride, images.column_stride, height, width, window, relu,
      output);
}

void add_blocked(const BlockedMap& a, const BlockedMap& b, const int64_t* rows,
                 const int64_t* columns, const BlockedMap& output) {
  for_each_row(output, [&](int64_t n, int64_t block, int64_t row) {
    const float* left = a.at(n, block, row, 0);
    const float* right = b.at(n, block, rows[row], 0);
    float* out = output.at(n, block, row, 0);
    for (int64_t c = 0; c < output.width; ++c)
      for (int64_t k = 0; k < kBlock; ++k)
        out[c * kBlock + k] =
            left[c * kBlock + k] + right[columns[c] * kBlock + k];
  });
}

}  // namespace mmadder::cpu
