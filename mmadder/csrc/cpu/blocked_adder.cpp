// The forward from map to map. Windows are read where the input lies, its
// border included; the epilogue writes whole blocks of channels.
#include <atomic>

#include "blocked_maps.h"

namespace mmadder::cpu {
namespace {

// What all threads share.
struct BlockedConvolution {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const Form form;
  const bool check;  // the accuracy of the max form
  const BlockedMap& input;
  const PackedWeight& weight;
  const Epilogue& epilogue;
  const BlockedMap* residual;
  const BlockedMap& output;
};

}  // namespace

// One thread's buffers.
class BlockedWorker {
 public:
  // Returns false if the max form is too inaccurate, as far as looked at.
  bool run(const BlockedConvolution& conv, const Task& task) {
    const SummedBand summed{
        conv.g, conv.kernels,         conv.form, conv.weight, task.band,
        0,      seen(conv, task.band)};
    return sums_.for_each_block(
        summed, task, conv.epilogue.center,
        [&](int64_t ob, const float* sums, const float* means) {
          return store(conv, task.band, ob, sums, means);
        });
  }

 private:
  static SeenImages seen(const BlockedConvolution& conv, const Band& band) {
    const auto& in = conv.input;
    const Region region = seen_region(conv.g, band);
    const int64_t columns = in.row() / kBlock;
    return {
        in.at(band.n, 0, region.row, region.column),
        in.image(),
        in.plane(),
        {0, region.rows, 0, columns},
        (region.rows - 1) * columns + region.columns,
        band.columns > 1 ? conv.g.stride_w : 1};
  }

  // Writes one block of output channels, vector by vector.
  static bool store(const BlockedConvolution& conv, const Band& band,
                    int64_t out_block, const float* sums, const float* means) {
    const int64_t vectors = conv.weight.vectors(out_block);
    const int64_t lanes = conv.kernels.lanes, width = vectors * lanes;
    const float* limits =
        conv.check ? conv.weight.limits(0, out_block) : nullptr;
    const float factor = conv.form == kMax ? -2.f : -1.f;
    bool accurate = true;
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t channel = out_block * conv.weight.width() + v * lanes;
      const int64_t block = channel / kBlock, lane = channel % kBlock;
      Epilogue e = conv.epilogue;
      e.mean += channel, e.scale += channel, e.bias += channel;
      for (int64_t i = 0; i < band.images * band.rows; ++i) {
        const int64_t n = band.n + i / band.rows;
        const int64_t oh = band.row + i % band.rows;
        if (conv.residual)
          e.residual = conv.residual->at(n, block, oh, band.column) + lane;
        float* out = conv.output.at(n, block, oh, band.column);
        accurate &= conv.kernels.store_blocked(
            sums + i * band.columns * width + v * lanes, width, band.columns,
            factor, means ? means + i * band.columns : nullptr,
            limits ? limits + v * lanes : nullptr, e, out + lane);
        const int64_t used = conv.g.out_channels - channel;
        if (used < lanes)  // lanes without a filter; 0 * inf is no zero
          for (int64_t ow = 0; ow < band.columns; ++ow)
            std::fill(out + ow * kBlock + lane + used,
                      out + ow * kBlock + lane + lanes, 0.f);
      }
    }
    return accurate;
  }

  BandSums sums_;
};

BlockedWorkers::BlockedWorkers()
    : workers_(std::make_unique<std::deque<BlockedWorker>>()) {}
BlockedWorkers::~BlockedWorkers() = default;

bool adder_conv2d_blocked(
    const Conv2dGeometry& g, Mode mode, const BlockedMap& input,
    const float* packed, const Epilogue& epilogue, const BlockedMap* residual,
    const BlockedMap& output, BlockedWorkers& workers) {
  const Kernels& kernels = cpu::kernels();
  PackedWeight weight(g, kernels);
  weight.attach(const_cast<float*>(packed));
  return in_form_of(mode, g, [&](Form form, bool check) {
    const BlockedConvolution conv{
        g, kernels, form, check, input, weight, epilogue, residual, output};
    std::atomic<bool> accurate{true};
    for_each_task(
        workers.get(), g.batch, 1, weight.out_blocks(), epilogue.center,
        g.out_h, g.out_w, [&](BlockedWorker& worker, const Task& task) {
          if (accurate.load(std::memory_order_relaxed) &&
              !worker.run(conv, task))
            accurate = false;
        });
    return accurate.load();
  });
}

}  // namespace mmadder::cpu
