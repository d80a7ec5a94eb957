// Maps of features in blocks of channels, as the kernels read them, and what
// a plan does with them: inference without a layout for each layer's entrance.
#pragma once

#include <deque>
#include <memory>

#include "band_sums.h"
#include "drivers.h"

namespace mmadder::cpu {

// [image][block][row][column][16] with a border of zeros around each plane,
// for the padding of the layers that read it. Channels that fill up the last
// block are zeros too. Whoever writes a map leaves both as they are.
struct BlockedMap {
  float* data;
  int64_t batch, channels, height, width, border_h, border_w;

  int64_t blocks() const { return num_blocks(channels); }
  int64_t row() const { return (width + 2 * border_w) * kBlock; }  // floats
  int64_t plane() const { return (height + 2 * border_h) * row(); }
  int64_t image() const { return blocks() * plane(); }
  // Row and column may lie in the border.
  float* at(int64_t n, int64_t block, int64_t r, int64_t c) const {
    return data + n * image() + block * plane() + (r + border_h) * row() +
        (c + border_w) * kBlock;
  }
};

class BlockedWorker;

// What the threads keep from one layer to the next.
class BlockedWorkers {
 public:
  BlockedWorkers();
  ~BlockedWorkers();
  std::deque<BlockedWorker>& get() { return *workers_; }

 private:
  std::unique_ptr<std::deque<BlockedWorker>> workers_;
};

// output = epilogue(-sum |input - weight|), as adder_conv2d_f32 does, of one
// group. The epilogue has mean, scale and bias for whole blocks of channels.
//   packed: of pack_weight, not shifted.
//   residual: has output's sizes, perhaps another border; or null.
// Returns whether kAuto had to take the exact form.
bool adder_conv2d_blocked(
    const Conv2dGeometry& geometry, Mode mode, const BlockedMap& input,
    const float* packed, const Epilogue& epilogue, const BlockedMap* residual,
    const BlockedMap& output, BlockedWorkers& workers);

// Images of any layout into a map.
void read_map(const Images& images, const BlockedMap& output);
// A map to NCHW.
void write_map(const BlockedMap& map, float* output);

// The largest of each window, whose padding does not count; ReLU of that.
void max_pool_blocked(
    const BlockedMap& input, const Window& window, const BlockedMap& output);
// The same of images whose channels are neighbours and fill whole blocks.
void max_pool_images(
    const Images& images, int64_t height, int64_t width, const Window& window,
    bool relu, const BlockedMap& output);

// output[row][column] = a[row][column] + b[rows[row]][columns[column]].
void add_blocked(const BlockedMap& a, const BlockedMap& b, const int64_t* rows,
                 const int64_t* columns, const BlockedMap& output);

}  // namespace mmadder::cpu
