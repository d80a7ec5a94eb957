// Sums of distances of one band of output positions, which all float32
// forwards share: those of NCHW images and those of maps in blocks.
#pragma once

#include <vector>

#include "kernels.h"
#include "packed_weight.h"
#include "packing.h"

namespace mmadder::cpu {

// Images in blocks of channels, [image][block][row][column][16], from the
// first pixel that a band's first window sees.
struct SeenImages {
  const float* data;
  int64_t image, plane;  // floats from one image, one block to the next
  Region region;         // how pixels lie
  int64_t pixels;        // of a block, to the last one that is seen
  int64_t column_step;   // columns from one window to the next: 1 or 2

  const float* row(int64_t n, int64_t r) const {
    return data + n * image + region.pixel(r, 0) * kBlock;
  }
};

// What is summed.
struct SummedBand {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  Form form;
  const PackedWeight& weight;
  const Band& band;
  int64_t group;
  SeenImages seen;
};

// One thread's buffers. A sum's order depends on the geometry alone.
class BandSums {
 public:
  // Calls store(block, sums, means) for the blocks of output channels of a
  // task, or of all if they are centered: sums are [position][lanes], of all
  // input channels; means over the filters at each position, or null. Returns
  // false as soon as one of the calls does.
  template <typename Store>
  bool for_each_block(const SummedBand& summed, const Task& task, bool center,
                      const Store& store) {
    start(summed, center);
    for (int64_t ob = task.first_block; ob < task.last_block; ++ob) {
      const float* block_sums = add_all(summed, ob);
      if (!center && !store(ob, block_sums, nullptr))
        return false;
    }
    if (!center)
      return true;
    const float* means = find_means(summed);
    for (int64_t ob = 0; ob < summed.weight.out_blocks(); ++ob)
      if (!store(ob, sums(ob), means))
        return false;
    return true;
  }

 private:
  // Room for the sums of one block of output channels, or of all.
  void start(const SummedBand& summed, bool all_blocks);
  const float* add_all(const SummedBand& summed, int64_t out_block);
  const float* find_means(const SummedBand& summed);
  float* sums(int64_t out_block) {
    return sums_.get() + (all_blocks_ ? out_block * block_ : 0);
  }

  void find_x_sums(const SummedBand& summed);
  void add_chunk(const SummedBand& summed, int64_t out_block, int64_t chunk,
                 float* sums) const;

  bool all_blocks_ = false;
  int64_t block_ = 0;  // floats of one block's sums
  std::vector<Step> steps_;
  Buffer pixel_sums_, x_sums_, sums_, means_;
  std::vector<double> totals_;
};

}  // namespace mmadder::cpu
