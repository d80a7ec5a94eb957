// Which kernel runs a shape, and on how many blocks.
#pragma once

#include <algorithm>
#include <limits>

#include "shape.h"

namespace mmadder {
namespace cuda {

// The tiles that are compiled.
struct TileChoice {
  int rows, pixels;
};
inline constexpr TileChoice kForwardTiles[] = {
    {32, 128}, {64, 128}, {128, 64}};
inline constexpr TileChoice kInputGradTiles[] = {{64, 128}, {128, 64}};

// Depth of one step through shared memory: where whole taps are fetched, and
// in the general case or where registers are short.
inline constexpr int kWideDepth = 16, kDepth = 8;
inline constexpr int kThreads = 256;  // of kernels with one per element

struct Plan {
  bool center;      // less the mean over a group's filters
  bool direct;      // one thread per element
  bool half_pairs;  // float16 arithmetic within a step
  bool whole_taps;  // a step's depth divides the channels
  TileChoice tile;
  PackedShape packing;
  Window window;
  Blocks blocks;
  int64_t block_count;
  int64_t packed_bytes, partial_numel;  // scratch memory
};

namespace detail {

inline constexpr int64_t kIntLimit = std::numeric_limits<int>::max();
inline constexpr int64_t kBorder = 256;  // a tile has fewer pixels and depth

// Whether the weight is one that the tiles of the forward read packed.
inline bool packs(const Shape& s) {
  return s.out_per_group >= 8 && s.in_per_group >= 2 && s.taps() < kIntLimit &&
      s.taps() * s.in_per_group < kIntLimit - kBorder;
}

// Whether a tile's 32-bit coordinates reach all of it.
inline bool fits_tiles(const Shape& s) {
  const auto extent =
      [](int64_t size, int64_t pad, int64_t kernel, int64_t dilation) {
        return size + 2 * pad + kernel * dilation;
      };
  return s.in_plane() < kIntLimit - kBorder &&
      s.out_plane() < kIntLimit - kBorder &&
      extent(s.in_h, s.pad_h, s.kernel_h, s.dilation_h) < kIntLimit &&
      extent(s.in_w, s.pad_w, s.kernel_w, s.dilation_w) < kIntLimit &&
      s.taps() < kIntLimit &&
      s.taps() * std::max(s.in_per_group, s.out_per_group) <
      kIntLimit - kBorder;
}

// The number of parts of the depth that takes least time by this count of
// cycles: the blocks of the busiest SM, two instructions per term on 128
// lanes, a depth of 64 for start and end, and some 10 bytes per SM and cycle
// to write and read partial results.
inline int best_splits(
    int64_t blocks, int depth, int64_t numel, const TileChoice& tile,
    int sms) {
  int best = 1;
  double least = std::numeric_limits<double>::max();
  for (int splits = 1; splits <= 16 && splits * 64 <= std::max(depth, 64);
       ++splits) {
    double cycles = ceil_div(blocks * splits, sms) *
        (ceil_div(depth, splits) + 64.) * tile.rows * tile.pixels / 64;
    if (splits > 1)
      cycles += splits * numel * 8. / (10. * sms);
    if (cycles < least)
      best = splits, least = cycles;
  }
  return best;
}

template <int N>
TileChoice smallest_tile(const TileChoice (&tiles)[N], int rows) {
  for (const auto& tile : tiles)
    if (rows <= tile.rows)
      return tile;
  return tiles[N - 1];
}

inline void set_blocks(
    Plan& plan, int rows, int64_t pixels, int parts, int depth, int64_t numel,
    int sms) {
  const int64_t row_tiles = ceil_div(rows, plan.tile.rows);
  const int64_t pixel_tiles = ceil_div(pixels, plan.tile.pixels);
  const int64_t blocks = row_tiles * pixel_tiles * parts;
  const int splits = best_splits(blocks, depth, numel, plan.tile, sms);
  plan.blocks = {(int)row_tiles, (int)pixel_tiles, splits};
  plan.block_count = blocks * splits;
  plan.direct = plan.block_count > kIntLimit;
  plan.partial_numel = splits > 1 ? splits * numel : 0;
}

// Whole taps are followed by a bit each.
inline bool whole_taps(const Shape& s, int channels, int depth) {
  return channels % depth == 0 && s.taps() <= 32;
}

inline PackedShape packed_shape(
    int classes_h, int classes_w, int depth, int rows,
    const TileChoice& tile) {
  // Whole steps, and a spare one that is fetched last.
  return {classes_h, classes_w,
          (int)(ceil_div(depth, kWideDepth) + 1) * kWideDepth,
          (unsigned)(ceil_div(rows, tile.rows) * tile.rows)};
}

}  // namespace detail

// Of a packed weight; empty where no tile reads it. The weight and groups
// alone decide, so that it can be packed before an input is known.
inline PackedShape packed_forward(const Shape& s) {
  if (!detail::packs(s))
    return {1, 1, 0, 0};
  return detail::packed_shape(
      1, 1, (int)s.taps() * s.in_per_group, s.out_per_group,
      detail::smallest_tile(kForwardTiles, s.out_per_group));
}

// sms: multiprocessors of the device. Equal numbers give equal bits. Partial
// results are those of the splits, and if centered, of row tiles and of the
// direct kernel, of which those of float64 lie in the output itself.
inline Plan plan_forward(const Shape& s, DType dtype, int sms, bool center) {
  Plan plan{};
  plan.center = center;
  plan.direct =
      dtype == DType::kDouble || !detail::packs(s) || !detail::fits_tiles(s);
  if (plan.direct) {
    if (center && dtype != DType::kDouble)
      plan.partial_numel = s.out_numel();
    return plan;
  }
  plan.tile = detail::smallest_tile(kForwardTiles, s.out_per_group);
  plan.half_pairs = dtype == DType::kHalf && !center &&
      plan.tile.rows == 128 &&
      detail::whole_taps(s, s.in_per_group, kWideDepth);
  // Fetching through registers leaves room for the smaller depth.
  const bool wide = dtype == DType::kFloat || plan.half_pairs;
  plan.whole_taps =
      detail::whole_taps(s, s.in_per_group, wide ? kWideDepth : kDepth);
  const int depth = (int)s.taps() * s.in_per_group;
  plan.packing = packed_forward(s);
  plan.packed_bytes = plan.packing.numel(s.groups) * (plan.half_pairs ? 2 : 4);
  // clang-format off
  plan.window = {s.in_per_group, 0, 0, s.dilation_h, s.dilation_w,
                 s.in_h, s.in_w, (unsigned)s.in_plane()};
  // clang-format on
  plan.window.set_taps(s.kernel_h, s.kernel_w);
  detail::set_blocks(plan, s.out_per_group, s.batch * s.out_plane(), s.groups,
                     depth, s.out_numel(), sms);
  const Blocks& blocks = plan.blocks;
  if (plan.direct)  // set_blocks found too many for a tiled launch
    plan.partial_numel = center ? s.out_numel() : 0;
  else if (center && blocks.splits * blocks.row_tiles > 1)
    plan.partial_numel = blocks.splits *
        (s.out_numel() +
         s.out_plane() * s.batch * s.groups * blocks.row_tiles);
  return plan;
}

// Of float32, with an Epilogue; the weight is packed before.
inline Plan plan_fused(const Shape& s, int sms, bool center) {
  Plan plan = plan_forward(s, DType::kFloat, sms, center);
  plan.packed_bytes = 0;
  return plan;
}

inline Plan plan_input_grad(const Shape& s, DType dtype, int sms) {
  Plan plan{};
  const int classes_h = std::min(s.stride_h, s.in_h);
  const int classes_w = std::min(s.stride_w, s.in_w);
  plan.direct = dtype == DType::kDouble || s.in_per_group < 8 ||
      s.out_per_group < 2 || !detail::fits_tiles(s) ||
      (int64_t)classes_h * classes_w > 64;  // mostly without any tap
  if (plan.direct)
    return plan;
  plan.tile = detail::smallest_tile(kInputGradTiles, s.in_per_group);
  plan.whole_taps = detail::whole_taps(s, s.out_per_group, kWideDepth);
  // Class 0 of an unpadded image has the tap 0, and no class more taps.
  const auto h = tap_series(0, s.kernel_h, s.stride_h, 0, s.dilation_h);
  const auto w = tap_series(0, s.kernel_w, s.stride_w, 0, s.dilation_w);
  const int depth = s.out_per_group * h.count * w.count;
  plan.packing = detail::packed_shape(
      classes_h, classes_w, depth, s.in_per_group, plan.tile);
  const int parts = s.groups * plan.packing.classes();
  plan.packed_bytes = plan.packing.numel(s.groups) * 4;
  // clang-format off
  plan.window = {s.out_per_group, 0, 0, -h.out_step, -w.out_step,
                 s.out_h, s.out_w, (unsigned)s.out_plane()};
  // clang-format on
  plan.window.set_taps(h.count, w.count);  // the kernel sets its class's
  const int64_t pixels =
      s.batch * ceil_div(s.in_h, s.stride_h) * ceil_div(s.in_w, s.stride_w);
  detail::set_blocks(
      plan, s.in_per_group, pixels, parts, depth, s.in_numel(), sms);
  return plan;
}

// Device pointers of a forward call: packed by pack_forward_kernel and aligned
// to 16 bytes, as a residual of end is; partial is the plan's or null.
template <typename T, typename End>
struct ForwardArguments {
  const T* input;
  const T* weight;
  const void* packed;
  float* partial;
  T* output;
  End end;
};
using FusedArguments = ForwardArguments<float, Epilogue>;

}  // namespace cuda
}  // namespace mmadder
