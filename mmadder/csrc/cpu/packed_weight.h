// The forward's weights in the order in which its kernels read them.
#pragma once

#include "../geometry.h"
#include "kernels.h"
#include "packing.h"

namespace mmadder::cpu {

// Per group: blocks of output channels as wide as the kernels' tiles; in a
// block [input block][tap][4 * quads][lanes]. Input blocks come in chunks
// whose weights fit the first-level cache; each chunk of a block has, for the
// max form, half the sum of its weights per lane.
//
// The max form loses what x and w have in common: sum max(x, w) and
// (sum x + sum w) / 2 nearly cancel where both are far from zero. So x and w
// of an input channel are both shifted by the mean of that channel's weights,
// which no distance notices. Inputs that several layers read as they are
// cannot be: their weights are packed without shift.
class PackedWeight {
 public:
  // data: size() floats, of an earlier pack() or for one.
  PackedWeight(const Conv2dGeometry& g, const Kernels& kernels);
  int64_t size() const;
  void attach(float* data) { data_ = data; }

  void pack(const float* weight, Form form, bool shifted);

  int64_t width() const { return width_; }  // channels of a whole block
  int64_t out_blocks() const { return ceil_div(out_channels_, width_); }
  int64_t vectors(int64_t out_block) const;
  int64_t chunk_blocks() const { return chunk_; }
  int64_t chunks() const { return ceil_div(in_blocks_, chunk_); }

  const float* weights(
      int64_t group, int64_t out_block, int64_t in_block) const {
    return data_ + (group * out_blocks() + out_block) * block_size() +
        in_block * kBlock * taps_ * vectors(out_block) * lanes_;
  }
  const float* half_sums(
      int64_t group, int64_t out_block, int64_t chunk) const {
    return data_ + sums_offset() +
        ((group * out_blocks() + out_block) * chunks() + chunk) * width_;
  }
  // Half distances from here on are accurate in the max form.
  const float* limits(int64_t group, int64_t out_block) const {
    return data_ + limits_offset() +
        (group * out_blocks() + out_block) * width_;
  }
  const float* shift(int64_t group) const {
    return data_ + shift_offset() + group * in_blocks_ * kBlock;
  }

 private:
  int64_t block_size() const { return padded_in_ * taps_ * width_; }
  int64_t sums_offset() const { return groups_ * out_blocks() * block_size(); }
  int64_t limits_offset() const {
    return sums_offset() + groups_ * out_blocks() * chunks() * width_;
  }
  int64_t shift_offset() const {
    return limits_offset() + groups_ * out_blocks() * width_;
  }
  void find_shift(const float* weight, int64_t group, int64_t in_block);
  void pack_block(const float* weight, int64_t group, int64_t out_block);
  void pack_lanes(
      const float* in, int64_t rows, int64_t in_block, const float* shift,
      int64_t lanes, int64_t width, float* out);
  void sum_block(int64_t group, int64_t out_block);

  const Kernels& kernels_;
  const int64_t groups_, in_channels_, out_channels_, taps_;
  const int64_t lanes_, width_;  // of a vector, of a block in floats
  const int64_t in_blocks_, padded_in_, chunk_;
  float* data_ = nullptr;
};

}  // namespace mmadder::cpu
