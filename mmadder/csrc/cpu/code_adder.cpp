// The 8-bit forward from map to map. Windows are read where the input lies,
// its border included; codes are written in whole vectors of channels.
#include "code_worker.h"

namespace mmadder::cpu {

void CodeWorker::run(const CodeAdder& adder, const Task& task) {
  const auto& in = adder.input;
  const auto& band = task.band;
  const Region region = seen_region(adder.g, band);
  const int64_t columns = in.row() / kBlockBytes;
  const int64_t width = adder.weight.width();
  sums_.for_each_block(
      {adder.g,
       adder.kernels,
       adder.weight,
       band,
       0,
       {in.at(band.n, 0, region.row, region.column),
        in.image(),
        in.plane(),
        {0, region.rows, 0, columns},
        band.columns > 1 ? adder.g.stride_w : 1}},
      task, adder.center,
      [&](int64_t ob, const int32_t* sums, const int32_t* totals) {
        for (int64_t i = 0; i < band.images * band.rows; ++i)
          adder.target.store(
              adder.kernels, ob * width, band.n + i / band.rows,
              band.row + i % band.rows, band.column, band.columns,
              sums + i * band.columns * width, width,
              totals ? totals + i * band.columns : nullptr);
      });
}

CodeWorkers::CodeWorkers()
    : workers_(std::make_unique<std::deque<CodeWorker>>()) {}
CodeWorkers::~CodeWorkers() = default;

void adder_conv2d_codes(
    const Conv2dGeometry& g, const CodeMap& input, const uint8_t* packed,
    bool center, const CodeTarget& target, CodeWorkers& workers) {
  if (g.batch == 0)
    return;
  const Kernels& kernels = cpu::kernels();
  PackedCodes weight(g, kernels);
  weight.attach(packed);
  const CodeAdder adder{g, kernels, input, weight, center, target};
  for_each_task(
      workers.get(), g.batch, 1, weight.out_blocks(), center, g.out_h, g.out_w,
      [&](CodeWorker& worker, const Task& task) { worker.run(adder, task); },
      kCodePositions);
}

}  // namespace mmadder::cpu
