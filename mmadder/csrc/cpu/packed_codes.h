// Weights of codes in the order in which the kernels read them, and what else
// the drivers of codes share.
#pragma once

#include "../geometry.h"
#include "kernels.h"
#include "packing.h"

namespace mmadder::cpu {

constexpr int64_t kEight = 8;

inline int64_t num_code_blocks(int64_t channels) {
  return ceil_div(channels, kBlockBytes);
}
// Eights of channels in a block that count.
inline int64_t num_eights(int64_t channels, int64_t block) {
  return ceil_div(
      std::min<int64_t>(channels - block * kBlockBytes, kBlockBytes), kEight);
}

// rows[channel][16] to cells of 16 bytes: cell[pixel][channel], up to 16.
void transpose_codes(
    const uint8_t (*rows)[kBlock], int64_t pixels, uint8_t* const* cells);

// Per group and block of output channels: [input block][tap][eight][output]
// [8].
class PackedCodes {
 public:
  PackedCodes(const Conv2dGeometry& g, const Kernels& kernels)
      : g_(g),
        width_(kMaxVectors * kernels.byte_outputs),
        eights_(ceil_div(g.in_channels_per_group(), kEight)) {}

  int64_t size() const { return g_.groups * out_blocks() * block_size(); }
  int64_t width() const { return width_; }
  int64_t out_blocks() const {
    return ceil_div(g_.out_channels_per_group(), width_);
  }
  void attach(const uint8_t* data) { data_ = data; }
  const uint8_t* block(
      int64_t group, int64_t out_block, int64_t in_block) const {
    return data_ + (group * out_blocks() + out_block) * block_size() +
        in_block * kBlockBytes * g_.taps() * width_;
  }

  void pack(const uint8_t* weight, uint8_t* packed) const;

 private:
  int64_t block_size() const { return eights_ * kEight * g_.taps() * width_; }
  void pack_filter(const uint8_t* filter, uint8_t* out) const;

  const Conv2dGeometry& g_;
  const int64_t width_, eights_;
  const uint8_t* data_ = nullptr;
};

}  // namespace mmadder::cpu
