// Sums of distances between codes of one band of output positions, which the
// 8-bit forwards share: that of NCHW images and that of maps of codes.
#pragma once

#include <vector>

#include "kernels.h"
#include "packed_codes.h"
#include "packing.h"

namespace mmadder::cpu {

// Images in blocks of channels, [image][block][row][column][64], from the
// first pixel that a band's first window sees.
struct SeenCodes {
  const uint8_t* data;
  int64_t image, plane;  // bytes from one image, one block to the next
  Region region;         // how pixels lie
  int64_t column_step;   // columns from one window to the next

  const uint8_t* row(int64_t n, int64_t r) const {
    return data + n * image + region.pixel(r, 0) * kBlockBytes;
  }
};

// What is summed.
struct SummedCodes {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const PackedCodes& weight;
  const Band& band;
  int64_t group;
  SeenCodes seen;
};

// One thread's buffers.
class CodeSums {
 public:
  // Calls store(block, sums, totals) for the blocks of output channels of a
  // task, or of all if they are centered: sums are [position][lanes]; totals
  // over the filters at each position, or null.
  template <typename Store>
  void for_each_block(const SummedCodes& summed, const Task& task, bool center,
                      const Store& store) {
    start(summed, center);
    for (int64_t ob = task.first_block; ob < task.last_block; ++ob) {
      add_all(summed, ob);
      if (!center)
        store(ob, sums(ob), nullptr);
    }
    if (!center)
      return;
    find_totals(summed);
    for (int64_t ob = 0; ob < summed.weight.out_blocks(); ++ob)
      store(ob, sums(ob), totals_.data());
  }

 private:
  // Room for the sums of one block of output channels, or of all.
  void start(const SummedCodes& summed, bool all_blocks);
  void add_all(const SummedCodes& summed, int64_t out_block);
  void add_chunk(const SummedCodes& summed, int64_t out_block, int64_t first,
                 int64_t last);
  void find_totals(const SummedCodes& summed);
  int32_t* sums(int64_t out_block) {
    return reinterpret_cast<int32_t*>(sums_.get()) +
        (all_blocks_ ? out_block * block_ : 0);
  }

  bool all_blocks_ = false;
  int64_t block_ = 0;  // of one block's sums
  std::vector<Step> steps_;
  Buffer sums_;
  std::vector<int32_t> totals_;
};

}  // namespace mmadder::cpu
