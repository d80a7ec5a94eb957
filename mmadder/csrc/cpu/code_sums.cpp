#include "code_sums.h"

namespace mmadder::cpu {

void CodeSums::start(const SummedCodes& summed, bool all_blocks) {
  const auto& g = summed.g;
  const int64_t channels = g.in_channels_per_group();
  find_steps(
      g, summed.seen.region, num_code_blocks(channels), summed.seen.plane,
      kBlockBytes, [&](int64_t b) { return num_eights(channels, b); }, steps_);
  all_blocks_ = all_blocks;
  block_ = summed.band.positions() * summed.weight.width();
  sums_.reserve(block_ * (all_blocks ? summed.weight.out_blocks() : 1));
}

void CodeSums::add_all(const SummedCodes& summed, int64_t out_block) {
  const int64_t blocks = num_code_blocks(summed.g.in_channels_per_group());
  const int64_t chunk =
      chunk_blocks(kBlockBytes * summed.g.taps() * summed.weight.width());
  for (int64_t b = 0; b < blocks; b += chunk)
    add_chunk(summed, out_block, b, std::min(b + chunk, blocks));
}

// Adds blocks of input channels to the sums of all positions.
void CodeSums::add_chunk(
    const SummedCodes& summed, int64_t out_block, int64_t first,
    int64_t last) {
  const auto& g = summed.g;
  const auto& band = summed.band;
  const auto& seen = summed.seen;
  const Step* steps = steps_.data() + first * g.taps();
  const int64_t num_steps = (last - first) * g.taps();
  // A single position has any step.
  const bool has_kernel = seen.column_step <= kMaxColumnStep;
  const auto& kernels =
      summed.kernels.l1_distance_u8[has_kernel ? seen.column_step - 1 : 0];
  const int64_t tiles = has_kernel
      ? ceil_div(band.columns, summed.kernels.byte_tile)
      : band.columns;
  const uint8_t* w = summed.weight.block(summed.group, out_block, first);
  int32_t* sums = this->sums(out_block);
  // The next chunk's weights follow in memory. Where an image is small, they
  // come from far away for few positions: ask for them ahead.
  const int64_t eight = kEight * summed.weight.width();
  const int64_t ahead_step = ceil_div(eight, band.images * band.rows * tiles);
  const uint8_t* ahead = summed.weight.block(summed.group, out_block, last);
  const int64_t ahead_tile = (ahead - w) / eight * ahead_step;
  for (int64_t n = 0; n < band.images; ++n)
    for (int64_t oh = 0; oh < band.rows; ++oh) {
      const uint8_t* row = seen.row(n, oh * g.stride_h);
      for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal width
        const int64_t ow = t * band.columns / tiles;
        const int64_t tile = (t + 1) * band.columns / tiles - ow;
        kernels[tile](row + ow * seen.column_step * kBlockBytes, steps,
                      num_steps, w, ahead, ahead_step, first > 0, sums);
        ahead += ahead_tile;
        sums += tile * summed.weight.width();
      }
    }
}

void CodeSums::find_totals(const SummedCodes& summed) {
  const int64_t positions = summed.band.positions();
  const int64_t width = summed.weight.width();
  const int64_t blocks = summed.weight.out_blocks();
  const int64_t used =
      summed.g.out_channels_per_group() - (blocks - 1) * width;
  int32_t* last = sums(blocks - 1);
  if (used < width)  // lanes without a filter
    for (int64_t p = 0; p < positions; ++p)
      std::fill(last + p * width + used, last + (p + 1) * width, 0);
  totals_.resize(positions);
  summed.kernels.code_totals(
      sums(0), block_, blocks, positions, totals_.data());
}

}  // namespace mmadder::cpu
