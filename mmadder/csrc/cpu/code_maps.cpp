#include "code_maps.h"

namespace mmadder::cpu {
namespace {

template <typename Visit>
void for_each_row(const CodeMap& map, const Visit& visit) {
  cpu::for_each_row(map.batch, map.blocks(), map.height, map.row(), visit);
}

}  // namespace

void CodeTarget::store(
    const Kernels& kernels, int64_t channel, int64_t n, int64_t row,
    int64_t column, int64_t positions, const int32_t* sums,
    int64_t sums_stride, const int32_t* totals) const {
  const int64_t block = channel / kBlockBytes, lane = channel % kBlockBytes;
  Requantization r = requantization;
  r.multiplier += channel, r.bias += channel, r.highest += channel;
  if (r.offset)
    r.offset += channel;
  if (r.least)
    r.least += channel, r.most += channel;
  kernels.requantize(
      sums, sums_stride, positions, totals, r,
      residual ? residual->at(n, block, row, column) + lane : nullptr,
      output.at(n, block, row, column) + lane);
}

void max_pool_codes(
    const CodeMap& input, const Window& w, const CodeMap& output) {
  const auto kernel = kernels().max_pool_codes;
  for_each_row(output, [&](int64_t n, int64_t block, int64_t row) {
    for_each_window(
        w, input.height, input.width, row, output.width,
        [&](int64_t begin, int64_t rows, int64_t inside, int64_t columns,
            int64_t c, int64_t positions) {
          kernel(input.at(n, block, begin, inside), input.row(), kBlockBytes,
                 rows, columns, w.stride_w * kBlockBytes, positions,
                 output.at(n, block, row, c));
        });
  });
}

void add_codes(
    const CodeMap& a, const CodeMap& b, const int64_t* rows,
    const int64_t* columns, const CodeSum& sum, const CodeMap& output) {
  const auto kernel = kernels().add_codes;
  for_each_row(output, [&](int64_t n, int64_t block, int64_t row) {
    CodeSum s = sum;
    s.highest += block * kBlockBytes;
    kernel(a.at(n, block, row, 0), b.at(n, block, rows[row], 0), columns,
           output.width, s, output.at(n, block, row, 0));
  });
}

void average_codes(
    const CodeMap& input, const Average& average, const CodeMap& output) {
  const int64_t count = input.height * input.width;
  const int64_t half = count << (average.shift - 1);
  for_each_row(output, [&](int64_t n, int64_t block, int64_t) {
    uint32_t sums[kBlockBytes] = {};
    for (int64_t r = 0; r < input.height; ++r) {
      const uint8_t* x = input.at(n, block, r, 0);
      for (int64_t c = 0; c < input.width; ++c, x += kBlockBytes)
        for (int i = 0; i < kBlockBytes; ++i)
          sums[i] += x[i];
    }
    const int64_t used =
        std::min<int64_t>(output.channels - block * kBlockBytes, kBlockBytes);
    for (int64_t i = 0; i < used; ++i) {
      const int64_t sum = sums[i] - input.zero_point * count;
      const int64_t value =
          floor_div(average.multiplier * sum + half, 2 * half);
      output.at(n, block, 0, 0)[i] = static_cast<uint8_t>(
          std::clamp(output.zero_point + value, average.low, average.highest));
    }
  });
}

void write_codes(const CodeMap& map, uint8_t* output) {
  const int64_t plane = map.height * map.width;
  for_each_row(map, [&](int64_t n, int64_t block, int64_t row) {
    const int64_t first = block * kBlockBytes;
    const int64_t channels =
        std::min<int64_t>(map.channels - first, kBlockBytes);
    uint8_t* out =
        output + (n * map.channels + first) * plane + row * map.width;
    for (int64_t c = 0; c < map.width; c += kBlock) {
      const int64_t columns = std::min<int64_t>(map.width - c, kBlock);
      const uint8_t* x = map.at(n, block, row, c);
      for (int64_t k = 0; k < channels; k += kBlock) {
        uint8_t rows[kBlock][kBlock] = {}, tile[kBlock][kBlock];
        uint8_t* cells[kBlock];
        for (int64_t i = 0; i < columns; ++i)
          std::memcpy(rows[i], x + i * kBlockBytes + k, kBlock);
        for (int64_t i = 0; i < kBlock; ++i)
          cells[i] = tile[i];
        transpose_codes(rows, kBlock, cells);
        for (int64_t i = 0; i < std::min<int64_t>(channels - k, kBlock); ++i)
          std::memcpy(out + (k + i) * plane + c, tile[i], columns);
      }
    }
  });
}

}  // namespace mmadder::cpu
