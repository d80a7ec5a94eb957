// One thread's part of the layers of an integer network.
#pragma once

#include <vector>

#include "code_maps.h"
#include "code_sums.h"

namespace mmadder::cpu {

// Sums of all filters at a band's positions stay in the second-level cache.
constexpr int64_t kCodePositions = 256;

// What all threads share of an adder.
struct CodeAdder {
  const Conv2dGeometry& g;
  const Kernels& kernels;
  const CodeMap& input;
  const PackedCodes& weight;
  const bool center;
  const CodeTarget& target;
};

// One thread's buffers.
class CodeWorker {
 public:
  void run(const CodeAdder& adder, const Task& task);

  std::vector<Step> steps;
  Buffer packed, products;  // of convolutions

 private:
  CodeSums sums_;
};

}  // namespace mmadder::cpu
