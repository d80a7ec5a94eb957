// What the drivers need of an instruction set: a table of microkernels over
// raw float32 pointers. One unit per instruction set fills its tables.
#pragma once

#include <cstdint>

namespace mmadder::cpu {

// Packed images interleave channels in blocks of this many:
// [block][row][column][16]. The last block is filled up with zeros.
constexpr int kBlock = 16;
// Packed channels are walked in quads; both operands have the same filler.
constexpr int kQuad = 4;
// Bytes of such a block; 8-bit images have 64 channels in a block.
constexpr int kBlockBytes = 64;
constexpr int kMaxTile = 16;
constexpr int kMaxVectors = 2;
// Of the columns from one window to the next, a kernel for each.
constexpr int kMaxColumnStep = 2;

// How a distance is summed. With max, sum |x - w| = 2 (sum max(x, w) -
// sum x / 2 - sum w / 2): two instructions instead of three.
enum Form { kExact, kMax, kNumForms };

enum InputGradient { kHardtanh, kSign, kNumInputGradients };

// One tap of one channel block: where it lies relative to a tile's first
// position, and how many quads of channels it has (of 8-bit channels: eights).
struct Step {
  int64_t offset;
  int64_t quads;
};

// What becomes of a distance d on its way to the output:
//   y = factor * d,  less the mean of y over the group's filters if center,
//   y = (y - mean) * scale + bias,  y += residual,
//   y = max(y, 0) if relu.
// mean, scale and bias: (out_channels,), all or none. residual: like output.
struct Epilogue {
  const float* mean = nullptr;
  const float* scale = nullptr;
  const float* bias = nullptr;
  const float* residual = nullptr;
  bool relu = false;
  bool center = false;
};

// Sums over all steps into sums[tile][vectors * lanes], or adds to them:
//   kExact: |x - w|
//   kMax:   max(x, w), less x_sums[position] and w_sums[lane]
// x: first position of the tile; the next one is kBlock floats on, times the
// column step of the kernel.
// w: [step][4 * quads][vectors * lanes].
using L1DistanceKernel = void (*)(
    const float* x, const Step* steps, int64_t num_steps, const float* w,
    const float* x_sums, const float* w_sums, bool add, float* sums);

// Sums grad * clip(w - x, -1, 1), or grad * sign(w - x), over all steps into
// grad_x, or adds to it. Vector v of x and grad_x lies v * vector_stride on.
//   grad: first position of the tile; the next one is kBlock floats on.
//   w: [step][4 * quads][vectors * lanes].
//   x, grad_x: lanes channels of the first position; next x_stride floats on.
using InputGradKernel = void (*)(
    const float* grad, const Step* steps, int64_t num_steps, const float* w,
    const float* x, int64_t x_stride, int64_t vector_stride, bool add,
    float* grad_x);

// dst[column][16 rows] = src[row][column] - shift[row], up to 16 x 16. Rows
// that are not there count as zero.
using TransposeKernel = void (*)(
    const float* src, int64_t src_stride, int64_t rows, int64_t columns,
    const float* shift, float* dst);

// dst[channel][position] = epilogue(factor * (sums[position][channel] -
// means[position])), up to 16 x 16; means has 16 floats or is null. The
// epilogue's pointers are those of the first channel; residual lies like dst.
// With limits, returns whether all sums reach limits[channel].
using StoreKernel = bool (*)(
    const float* sums, int64_t sums_stride, int64_t positions,
    int64_t channels, float factor, const float* means, const float* limits,
    const Epilogue& epilogue, float* dst, int64_t dst_stride);

// totals[position] += sum of sums[position][lanes].
using LaneSumsKernel = void (*)(
    const float* sums, int64_t lanes, int64_t positions, double* totals);

// sums[pixel] = half the sum over all blocks of packed[block][pixel][16]; the
// next pixel is pixel_stride floats on.
using ChannelSumsKernel = void (*)(
    const float* packed, int64_t block_stride, int64_t blocks, int64_t pixels,
    int64_t pixel_stride, float* sums);

// The store into a map in blocks: one vector of dst[position][16], and so of
// residual; sums[position] are sums_stride apart. The epilogue's pointers are
// those of the first lane; means and limits as of StoreKernel.
using StoreBlockedKernel = bool (*)(
    const float* sums, int64_t sums_stride, int64_t positions, float factor,
    const float* means, const float* limits, const Epilogue& epilogue,
    float* dst);

// dst[position][16] = the largest x[row][column][16] of a window, NaN if there
// is one, zero if that is larger and relu. Strides in floats; windows are
// `step` apart.
using MaxPoolKernel = void (*)(
    const float* x, int64_t row_stride, int64_t column_stride, int64_t rows,
    int64_t columns, int64_t step, int64_t positions, bool relu, float* dst);

// half_sums[lane] = half the sum of w[row][vectors * lanes] over the rows;
// adds the sum of |w| to distances[lane].
using WeightSumsKernel = void (*)(
    const float* w, int64_t rows, float* half_sums, float* distances);

// Sums of an integer network count 1 / 2^kFraction of a code before they are
// rounded to codes.
constexpr int kFraction = 14;

// Sums |x - w| over all steps into sums[tile][2 * byte_outputs], or adds.
//   x: first position of the tile; the next one is kBlockBytes on, times the
//   column step of the kernel.
//   w: [step][eights][2 * byte_outputs][8].
//   ahead: what to fetch into the cache meanwhile, ahead_step bytes on with
//   each eight.
using L1DistanceU8Kernel = void (*)(
    const uint8_t* x, const Step* steps, int64_t num_steps, const uint8_t* w,
    const uint8_t* ahead, int64_t ahead_step, bool add, int32_t* sums);

// totals[position] = sum over all blocks of sums[block][position][2 *
// byte_outputs].
using CodeTotalsKernel = void (*)(
    const int32_t* sums, int64_t block_stride, int64_t blocks,
    int64_t positions, int32_t* totals);

// Sums x * w over all steps into sums[tile][2 * int_lanes], or adds; quads of
// a step count four values each.
//   x: first position of the tile; the next one is x_stride on.
//   w: [step][quads][2 * int_lanes][4].
using ProductsKernel = void (*)(
    const uint8_t* x, int64_t x_stride, const Step* steps, int64_t num_steps,
    const int8_t* w, bool add, int32_t* sums);

// What becomes of a sum on its way to a code (docs/integer_format.md):
//   acc = sum + offset, or -sum without offsets, or total - filters * sum if
//   there are totals;
//   t = (acc * multiplier + 2^(shift - 1)) >> shift, within 31 bits;
//   t += bias + residual * residual_multiplier;
//   code = (t >> 16) + zero_point, from low to highest.
// Pointers are those of the first lane.
struct Requantization {
  const int32_t* offset;
  const int32_t* multiplier;
  // An acc beyond these has the t of the limits of t; null if none can be.
  const int32_t* least;
  const int32_t* most;
  const int32_t* bias;     // and what rounding and zero points add
  const int32_t* highest;  // 0 of a channel that is not there
  int shift;
  int32_t filters, residual_multiplier, zero_point, low;
};

// One vector of codes of each position, [position][64], and so of residual,
// which may be null. sums[position] are sums_stride apart.
using RequantizeKernel = void (*)(
    const int32_t* sums, int64_t sums_stride, int64_t positions,
    const int32_t* totals, const Requantization& requantization,
    const uint8_t* residual, uint8_t* dst);

// code = ((a * multiplier_a + b * multiplier_b + offset) >> 16) + zero_point,
// from low to highest[64].
struct CodeSum {
  int32_t multiplier_a, multiplier_b, offset, zero_point, low;
  const int32_t* highest;
};

// dst[position][64] of a[position] and b[columns[position]].
using AddCodesKernel = void (*)(
    const uint8_t* a, const uint8_t* b, const int64_t* columns,
    int64_t positions, const CodeSum& sum, uint8_t* dst);

// dst[position][64] = the largest x[row][column][64] of a window. Strides in
// bytes; windows are `step` apart.
using MaxPoolCodesKernel = void (*)(
    const uint8_t* x, int64_t row_stride, int64_t column_stride, int64_t rows,
    int64_t columns, int64_t step, int64_t positions, uint8_t* dst);

struct Kernels {
  const char* name;
  int lanes;                             // floats in a vector
  bool clip_hides_nan;                   // of the weight, in input_grad
  int forward_tile[kMaxVectors + 1];     // most positions, by vectors
  int input_grad_tile[kMaxVectors + 1];  // 0: no such kernel
  L1DistanceKernel
      l1_distance[kNumForms][kMaxColumnStep][kMaxVectors + 1][kMaxTile + 1];
  InputGradKernel
      input_grad[kNumInputGradients][kMaxVectors + 1][kMaxTile + 1];
  TransposeKernel transpose;
  StoreKernel store;
  StoreBlockedKernel store_blocked;
  MaxPoolKernel max_pool;
  LaneSumsKernel lane_sums;
  ChannelSumsKernel channel_sums;
  WeightSumsKernel weight_sums[kMaxVectors + 1];
  int byte_outputs;  // output channels in a vector of bytes
  int byte_tile;     // most positions
  L1DistanceU8Kernel l1_distance_u8[kMaxColumnStep][kMaxTile + 1];
  CodeTotalsKernel code_totals;
  int int_lanes;  // int32 in a vector, twice byte_outputs
  ProductsKernel products[kMaxTile + 1];  // up to byte_tile
  RequantizeKernel requantize;
  AddCodesKernel add_codes;
  MaxPoolCodesKernel max_pool_codes;
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_zen4_kernels();
#endif

// The best table that this processor can run; MMADDER_CPU_ISA names another.
const Kernels& kernels();

}  // namespace mmadder::cpu
