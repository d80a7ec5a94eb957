// Maps of 8-bit codes in blocks of channels, as the kernels read them, and
// what the steps of an integer network (docs/integer_format.md) do with them.
#pragma once

#include <deque>
#include <memory>

#include "drivers.h"
#include "packed_codes.h"

namespace mmadder::cpu {

// [image][block][row][column][64]. A border around each plane has the code of
// zero, for the padding of the adders that read it. Channels that fill up the
// last block are 0, as in the weights. Whoever writes a map leaves both so.
struct CodeMap {
  uint8_t* data;
  int64_t batch, channels, height, width, border_h, border_w;
  int zero_point;

  int64_t blocks() const { return num_code_blocks(channels); }
  int64_t row() const { return (width + 2 * border_w) * kBlockBytes; }
  int64_t plane() const { return (height + 2 * border_h) * row(); }
  int64_t image() const { return blocks() * plane(); }
  // Row and column may lie in the border.
  uint8_t* at(int64_t n, int64_t block, int64_t r, int64_t c) const {
    return data + n * image() + block * plane() + (r + border_h) * row() +
        (c + border_w) * kBlockBytes;
  }
};

// Where requantized sums go; the vectors of the requantization are for whole
// blocks of channels. residual: has output's sizes; or null.
struct CodeTarget {
  const Requantization& requantization;
  const CodeMap* residual;
  const CodeMap& output;

  // A vector of channels of positions that lie side by side.
  void store(const Kernels& kernels, int64_t channel, int64_t n, int64_t row,
             int64_t column, int64_t positions, const int32_t* sums,
             int64_t sums_stride, const int32_t* totals) const;
};

class CodeWorker;

// What the threads keep from one layer to the next.
class CodeWorkers {
 public:
  CodeWorkers();
  ~CodeWorkers();
  std::deque<CodeWorker>& get() { return *workers_; }

 private:
  std::unique_ptr<std::deque<CodeWorker>> workers_;
};

// acc = -sum |input - weight|, or centered, requantized. packed: of
// pack_codes.
void adder_conv2d_codes(
    const Conv2dGeometry& geometry, const CodeMap& input,
    const uint8_t* packed, bool center, const CodeTarget& target,
    CodeWorkers& workers);

// The picture of a network, NCHW, with a zero point for each channel.
struct Picture {
  const uint8_t* data;
  const int32_t* zero_points;
};

// Weights of a convolution, int8, in the order of the kernels of this
// processor. Of a geometry only channels, kernel and dilation count.
int64_t packed_products_size(const Conv2dGeometry& geometry);  // bytes
void pack_products(
    const Conv2dGeometry& geometry, const int8_t* weight, int8_t* packed);

// acc = sum weight * input + offset, requantized, where padding has the zero
// point. packed: of pack_products; offset: in the requantization, what zero
// points take off.
template <typename Input>  // CodeMap or Picture
void conv2d_codes(
    const Conv2dGeometry& geometry, const Input& input, const int8_t* packed,
    const CodeTarget& target, CodeWorkers& workers);
// sum weight * input + offset, NCHW.
template <typename Input>
void conv2d_codes(
    const Conv2dGeometry& geometry, const Input& input, const int8_t* packed,
    const int32_t* offset, int32_t* output, CodeWorkers& workers);

// The largest of each window.
void max_pool_codes(
    const CodeMap& input, const Window& window, const CodeMap& output);

// output[row][column] = sum of a[row][column] and b[rows[row]]
// [columns[column]].
void add_codes(
    const CodeMap& a, const CodeMap& b, const int64_t* rows,
    const int64_t* columns, const CodeSum& sum, const CodeMap& output);

// Over all n positions, to 1 x 1:
//   code = floor((multiplier * sum (x - zero point) + n 2^(shift - 1)) / (n
//   2^shift)) + zero point, from low to highest.
struct Average {
  int64_t multiplier, shift, low, highest;
};
void average_codes(
    const CodeMap& input, const Average& average, const CodeMap& output);

// A map to NCHW.
void write_codes(const CodeMap& map, uint8_t* output);

}  // namespace mmadder::cpu
