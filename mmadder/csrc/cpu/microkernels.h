// The microkernels, written once over a vector type. A unit includes this
// after it has chosen its instruction set and defined `Vector` with
//   lanes, zero, load, store, broadcast, one, sub, abs, add, multiply_add,
//   clip, sign, add_by_fma, sub_by_fma
// The last two are a + b and a - b on the multiplier's pipe where that
// balances the pipes: they take a `one` that the compiler cannot fold away.
// Everything has internal linkage: a symbol shared with another unit could
// carry instructions that the processor lacks.
#include "kernels.h"

namespace mmadder::cpu {
namespace {

template <int kVectors, int kTile>
void l1_distance_f32(
    const float* x, int64_t x_stride, const Step* steps, int64_t num_steps,
    const float* w, float* sums) {
  constexpr int kLanes = Vector::lanes;
  const auto one = Vector::one();
  Vector::type acc[kTile][kVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      acc[t][v] = Vector::zero();

  for (int64_t s = 0; s < num_steps; ++s) {
    const float* xs = x + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; ++c) {
        Vector::type wv[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          wv[v] = Vector::load(w + (c * kVectors + v) * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTile; ++t) {
          const auto xv = Vector::broadcast(xs + t * x_stride + c);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v)
            acc[t][v] = Vector::add_by_fma(
                Vector::abs(Vector::sub(xv, wv[v])), acc[t][v], one);
        }
      }
      w += kQuad * kVectors * kLanes;
      xs += kQuad;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      float* sum = sums + (t * kVectors + v) * kLanes;
      Vector::store(sum, Vector::add(Vector::load(sum), acc[t][v]));
    }
}

template <int kTile, InputGradient kForm>
void input_grad_f32(
    const float* grad, const Step* steps, int64_t num_steps, const float* w,
    const float* x, int64_t x_stride, float* grad_x) {
  constexpr int kLanes = Vector::lanes;
  const auto one = Vector::one();
  Vector::type acc[kTile], xv[kTile];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t) {
    acc[t] = Vector::zero();
    xv[t] = Vector::load(x + t * x_stride);
  }

  for (int64_t s = 0; s < num_steps; ++s) {
    const float* gs = grad + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; ++c) {
        const auto wv = Vector::load(w + c * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTile; ++t) {
          const auto difference = Vector::sub_by_fma(wv, xv[t], one);
          acc[t] = Vector::multiply_add(
              kForm == kSign ? Vector::sign(difference)
                             : Vector::clip(difference),
              Vector::broadcast(gs + t * kBlock + c), acc[t]);
        }
      }
      w += kQuad * kLanes;
      gs += kQuad;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t) {
    float* out = grad_x + t * x_stride;
    Vector::store(out, Vector::add(Vector::load(out), acc[t]));
  }
}

// Fills the tables for tiles of kTile positions and fewer.
template <int kVectors, int kTile>
void set_l1_distance(Kernels& table) {
  table.l1_distance[kTile] = l1_distance_f32<kVectors, kTile>;
  if constexpr (kTile > 1)
    set_l1_distance<kVectors, kTile - 1>(table);
}

template <int kTile>
void set_input_grad(Kernels& table) {
  table.input_grad[kHardtanh][kTile] = input_grad_f32<kTile, kHardtanh>;
  table.input_grad[kSign][kTile] = input_grad_f32<kTile, kSign>;
  if constexpr (kTile > 1)
    set_input_grad<kTile - 1>(table);
}

template <int kVectors, int kForwardTile, int kInputGradTile>
Kernels make_kernels(const char* name, TransposeKernel transpose) {
  Kernels table{};
  table.name = name;
  table.lanes = Vector::lanes;
  table.vectors = kVectors;
  table.forward_tile = kForwardTile;
  table.input_grad_tile = kInputGradTile;
  set_l1_distance<kVectors, kForwardTile>(table);
  set_input_grad<kInputGradTile>(table);
  table.transpose = transpose;
  return table;
}

void transpose_scalar(
    const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
    int64_t rows, int64_t columns, float scale) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      dst[c * dst_stride + r] = scale * src[r * src_stride + c];
}

}  // namespace
}  // namespace mmadder::cpu
