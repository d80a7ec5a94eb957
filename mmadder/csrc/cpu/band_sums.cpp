#include "band_sums.h"

namespace mmadder::cpu {

void BandSums::start(const SummedBand& summed, bool all_blocks) {
  const auto& g = summed.g;
  const int64_t channels = g.in_channels_per_group();
  find_steps(
      g, summed.seen.region, num_blocks(channels), summed.seen.plane, kBlock,
      [&](int64_t b) { return padded_channels(channels, b) / kQuad; }, steps_);
  if (summed.form == kMax)
    find_x_sums(summed);
  all_blocks_ = all_blocks;
  block_ = summed.band.positions() * summed.weight.width();
  sums_.reserve(block_ * (all_blocks ? summed.weight.out_blocks() : 1));
}

const float* BandSums::add_all(const SummedBand& summed, int64_t out_block) {
  float* sums = this->sums(out_block);
  for (int64_t chunk = 0; chunk < summed.weight.chunks(); ++chunk)
    add_chunk(summed, out_block, chunk, sums);
  return sums;
}

// Half the sum of x over the window of each position, for each chunk: first
// over the channels of a pixel, then over the taps.
void BandSums::find_x_sums(const SummedBand& summed) {
  const auto& g = summed.g;
  const auto& band = summed.band;
  const auto& seen = summed.seen;
  const int64_t chunks = summed.weight.chunks();
  const int64_t chunk = summed.weight.chunk_blocks();
  const int64_t blocks = num_blocks(g.in_channels_per_group());
  const auto channel_sums = summed.kernels.channel_sums;
  float* pixel_sums = pixel_sums_.reserve(seen.pixels);
  float* sums = x_sums_.reserve(chunks * band.positions());
  for (int64_t c = 0; c < chunks; ++c) {
    const int64_t offset = c * chunk * seen.plane;
    const int64_t used = std::min(chunk, blocks - c * chunk);
    for (int64_t n = 0; n < band.images; ++n) {
      if (g.taps() > 1)
        channel_sums(seen.row(n, 0) + offset, seen.plane, used, seen.pixels,
                     kBlock, pixel_sums);
      for (int64_t oh = 0; oh < band.rows; ++oh, sums += band.columns) {
        if (g.taps() == 1) {
          channel_sums(seen.row(n, oh * g.stride_h) + offset, seen.plane, used,
                       band.columns, seen.column_step * kBlock, sums);
          continue;
        }
        std::fill(sums, sums + band.columns, 0.f);
        const float* first =
            pixel_sums + seen.region.pixel(oh * g.stride_h, 0);
        for (int64_t t = 0; t < g.taps(); ++t) {
          const float* row = first + steps_[t].offset / kBlock;
          if (seen.column_step == 1)
            for (int64_t ow = 0; ow < band.columns; ++ow)
              sums[ow] += row[ow];
          else
            for (int64_t ow = 0; ow < band.columns; ++ow)
              sums[ow] += row[ow * seen.column_step];
        }
      }
    }
  }
}

// Adds a chunk of input blocks to the sums of all positions.
void BandSums::add_chunk(
    const SummedBand& summed, int64_t out_block, int64_t chunk,
    float* sums) const {
  const auto& g = summed.g;
  const auto& band = summed.band;
  const auto& weight = summed.weight;
  const auto& seen = summed.seen;
  const int64_t blocks = num_blocks(g.in_channels_per_group());
  const int64_t first = chunk * weight.chunk_blocks();
  const int64_t last = std::min(first + weight.chunk_blocks(), blocks);
  const Step* steps = steps_.data() + first * g.taps();
  const int64_t vectors = weight.vectors(out_block);
  const auto& kernels =
      summed.kernels.l1_distance[summed.form][seen.column_step - 1][vectors];
  const float* w = weight.weights(summed.group, out_block, first);
  const float* w_sums = weight.half_sums(summed.group, out_block, chunk);
  const float* x_sums = x_sums_.get() + chunk * band.positions();
  const int64_t tiles =
      ceil_div(band.columns, summed.kernels.forward_tile[vectors]);
  WeightsAhead ahead(w, weight.weights(summed.group, out_block, last),
                     band.images * band.rows * tiles);
  for (int64_t n = 0; n < band.images; ++n)
    for (int64_t oh = 0; oh < band.rows; ++oh) {
      const float* row = seen.row(n, oh * g.stride_h);
      for (int64_t t = 0; t < tiles; ++t) {  // of nearly equal width
        const int64_t ow = t * band.columns / tiles;
        const int64_t tile = (t + 1) * band.columns / tiles - ow;
        ahead.fetch();
        kernels[tile](
            row + ow * seen.column_step * kBlock, steps,
            (last - first) * g.taps(), w, x_sums, w_sums, chunk > 0, sums);
        sums += tile * vectors * summed.kernels.lanes;
        x_sums += tile;
      }
    }
}

const float* BandSums::find_means(const SummedBand& summed) {
  const int64_t positions = summed.band.positions();
  const int64_t channels = summed.g.out_channels_per_group();
  totals_.assign(positions, 0.);
  for (int64_t ob = 0; ob < summed.weight.out_blocks(); ++ob) {
    float* sums = this->sums(ob);
    const int64_t width = summed.weight.vectors(ob) * summed.kernels.lanes;
    const int64_t used = channels - ob * summed.weight.width();
    if (used < width)  // lanes without a filter
      for (int64_t p = 0; p < positions; ++p)
        std::fill(sums + p * width + used, sums + (p + 1) * width, 0.f);
    summed.kernels.lane_sums(sums, width, positions, totals_.data());
  }
  const double share = 1. / static_cast<double>(channels);
  float* means = means_.reserve(positions + kBlock);  // read in blocks
  std::fill(means + positions, means + positions + kBlock, 0.f);
  for (int64_t p = 0; p < positions; ++p)
    means[p] = static_cast<float>(totals_[p] * share);
  return means;
}

}  // namespace mmadder::cpu
