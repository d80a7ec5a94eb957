// What the drivers need of an instruction set: a table of microkernels over
// raw float32 pointers. One unit per instruction set fills one table.
#pragma once

#include <cstdint>

namespace mmadder::cpu {

// Packed images interleave channels in blocks of this many:
// [block][row][column][16]. The last block is filled up with zeros.
constexpr int kBlock = 16;
// Packed channels are walked in quads; both operands have the same filler.
constexpr int kQuad = 4;
constexpr int kMaxTile = 16;

// One tap of one channel block: where it lies relative to a tile's first
// position, and how many quads of channels it has.
struct Step {
  int64_t offset;
  int64_t quads;
};

// Adds sum |x - w| of every step to sums[tile][vectors * lanes].
//   x: first position of the tile; the next one is x_stride floats on.
//   w: [step][4 * quads][vectors * lanes].
using L1DistanceKernel = void (*)(
    const float* x, int64_t x_stride, const Step* steps, int64_t num_steps,
    const float* w, float* sums);

// Adds sum grad * clip(w - x, -1, 1), or sign(w - x), of every step to
// grad_x[tile][lanes].
//   grad: first position of the tile; the next one is 16 floats on.
//   w: [step][4 * quads][lanes].
//   x, grad_x: lanes channels of the first position; next x_stride floats on.
using InputGradKernel = void (*)(
    const float* grad, const Step* steps, int64_t num_steps, const float* w,
    const float* x, int64_t x_stride, float* grad_x);

// dst[column][row] = scale * src[row][column], for rows and columns <= 16.
using TransposeKernel = void (*)(
    const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
    int64_t rows, int64_t columns, float scale);

enum InputGradient { kHardtanh, kSign, kNumInputGradients };

struct Kernels {
  const char* name;
  int lanes;             // floats in a vector
  int vectors;           // vectors of output channels in a forward tile
  int forward_tile;      // positions in the largest forward tile
  int input_grad_tile;   // positions in the largest gradient tile
  L1DistanceKernel l1_distance[kMaxTile + 1];  // by positions in the tile
  InputGradKernel input_grad[kNumInputGradients][kMaxTile + 1];
  TransposeKernel transpose;
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
#endif

// The best table that this processor can run; MMADDER_CPU_ISA names another.
const Kernels& kernels();

}  // namespace mmadder::cpu
