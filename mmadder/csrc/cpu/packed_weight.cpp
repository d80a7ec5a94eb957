#include "packed_weight.h"

#include <cmath>

namespace mmadder::cpu {
namespace {

// The max form's relative error is about 1.6e-7 (sum |x - c| + sum |w - c|) /
// sum |x - w| (c: the shift), which is at most 1.6e-7 (1 + 2 sum |w - c| /
// sum |x - w|), since |x - c| <= |x - w| + |w - c|.
constexpr float kMostCancellation = 8;  // sum |w - c| / sum |x - w|

// out = in - shift, for up to 16 lanes.
void subtract(const float* in, float shift, int64_t lanes, float* out) {
  if (lanes == kBlock)
    for (int i = 0; i < kBlock; ++i)
      out[i] = in[i] - shift;
  else
    for (int64_t i = 0; i < lanes; ++i)
      out[i] = in[i] - shift;
}

}  // namespace

PackedWeight::PackedWeight(const Conv2dGeometry& g, const Kernels& kernels)
    : kernels_(kernels),
      groups_(g.groups),
      in_channels_(g.in_channels_per_group()),
      out_channels_(g.out_channels_per_group()),
      taps_(g.taps()),
      lanes_(kernels.lanes),
      width_(lanes_ * (out_channels_ > lanes_ ? kMaxVectors : 1)),
      in_blocks_(num_blocks(in_channels_)),
      padded_in_((in_blocks_ - 1) * kBlock +
                 padded_channels(in_channels_, in_blocks_ - 1)),
      chunk_(std::min(
          cpu::chunk_blocks(
              kBlock * taps_ * width_ * static_cast<int64_t>(sizeof(float))),
          in_blocks_)) {}

int64_t PackedWeight::size() const {
  return shift_offset() + groups_ * in_blocks_ * kBlock;
}

int64_t PackedWeight::vectors(int64_t out_block) const {
  const int64_t left = out_channels_ - out_block * width_;
  return std::min(ceil_div(left, lanes_), width_ / lanes_);
}

void PackedWeight::pack(const float* weight, Form form, bool shifted) {
  std::fill(data_ + shift_offset(), data_ + size(), 0.f);
  if (form == kMax && shifted)
    at::parallel_for(
        0, groups_ * in_blocks_, 4, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i)
            find_shift(weight, i / in_blocks_, i % in_blocks_);
        });
  at::parallel_for(
      0, groups_ * out_blocks(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          pack_block(weight, i / out_blocks(), i % out_blocks());
          if (form == kMax)
            sum_block(i / out_blocks(), i % out_blocks());
        }
      });
}

// The mean of up to 64 filters' weights is centre enough.
void PackedWeight::find_shift(
    const float* weight, int64_t group, int64_t in_block) {
  const int64_t first = in_block * kBlock;
  const int64_t channels = std::min<int64_t>(in_channels_ - first, kBlock);
  const int64_t filters = std::min<int64_t>(out_channels_, 64);
  double sums[kBlock] = {};
  for (int64_t i = 0; i < filters; ++i) {
    const int64_t oc = group * out_channels_ + i * out_channels_ / filters;
    const float* w = weight + (oc * in_channels_ + first) * taps_;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t t = 0; t < taps_; ++t)
        sums[c] += *w++;
  }
  float* shift = const_cast<float*>(this->shift(group)) + first;
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = sums[c] / (filters * taps_);
    if (std::isfinite(mean))
      shift[c] = static_cast<float>(mean);
  }
}

void PackedWeight::pack_block(
    const float* weight, int64_t group, int64_t out_block) {
  const int64_t width = vectors(out_block) * lanes_;
  const int64_t first = out_block * width_;
  const int64_t filter = in_channels_ * taps_;
  const float* shift = this->shift(group);
  float* out = const_cast<float*>(weights(group, out_block, 0));
  if (padded_in_ != in_channels_)  // the quads' filler, in the last block
    std::fill(out, out + padded_in_ * taps_ * width, 0.f);
  for (int64_t l = 0; l < width; l += kBlock) {
    const int64_t rows =
        std::clamp<int64_t>(out_channels_ - first - l, 0, kBlock);
    const int64_t used = std::min<int64_t>(width - l, kBlock);
    const float* in = weight + (group * out_channels_ + first + l) * filter;
    for (int64_t b = 0; b < in_blocks_; ++b)
      pack_lanes(in + b * kBlock * taps_, rows, b, shift + b * kBlock, used,
                 width, out + b * kBlock * taps_ * width + l);
  }
}

// One input block of up to 16 filters.
void PackedWeight::pack_lanes(
    const float* in, int64_t rows, int64_t in_block, const float* shift,
    int64_t lanes, int64_t width, float* out) {
  static constexpr float no_shift[kBlock] = {};
  const int64_t filter = in_channels_ * taps_;
  const int64_t padded = padded_channels(in_channels_, in_block);
  const int64_t elements =
      taps_ * std::min<int64_t>(in_channels_ - in_block * kBlock, kBlock);
  int64_t channel = 0, tap = 0;
  for (int64_t i = 0; i < elements; i += kBlock) {
    float tile[kBlock * kBlock];
    const int64_t columns = std::min<int64_t>(elements - i, kBlock);
    kernels_.transpose(in + i, filter, rows, columns, no_shift, tile);
    for (int64_t j = 0; j < columns; ++j) {
      subtract(tile + j * kBlock, shift[channel], lanes,
               out + (tap * padded + channel) * width);
      if (++tap == taps_)
        tap = 0, ++channel;
    }
  }
}

// Per lane: half the sum of each chunk, and the limit of the whole filter.
void PackedWeight::sum_block(int64_t group, int64_t out_block) {
  const int64_t vectors = this->vectors(out_block);
  float* limit = const_cast<float*>(limits(group, out_block));
  std::fill(limit, limit + vectors * lanes_, 0.f);
  for (int64_t c = 0; c < chunks(); ++c) {
    const int64_t first = c * chunk_ * kBlock;
    const int64_t last = std::min(padded_in_, first + chunk_ * kBlock);
    kernels_.weight_sums[vectors](
        weights(group, out_block, c * chunk_), (last - first) * taps_,
        const_cast<float*>(half_sums(group, out_block, c)), limit);
  }
  for (int64_t l = 0; l < vectors * lanes_; ++l)
    limit[l] *= 0.5f / kMostCancellation;
}

}  // namespace mmadder::cpu
