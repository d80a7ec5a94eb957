// The microkernels, written once over a vector type. A unit includes this
// after it has chosen its instruction set; its vector type V has
//   type, lanes, zero, set, load, store, add, sub, mul, multiply_add;
//   any_below(a, b): whether a lane of a is not at least that of b;
//   relu, clip to [-1, 1] and sign, all of which keep NaN, but for clip
//   where clip_hides_nan; keep_nan(a, b), a where that is NaN, else b;
//   larger(a, b), b if one is NaN;
//   sum of all lanes;
//   Broadcast, one float for all lanes, made from its address: max and
//   distance of a vector and a Broadcast, multiply_add with one as factor;
//   add_by_fma, sub_by_fma: a + b and a - b on the multiplier's pipe where
//   that balances the pipes; their `one` must be opaque to the compiler;
//   sub_only_by_fma: so for all subtractions of the input gradient, or for
//   every second one;
//   transpose, a TransposeKernel.
// Everything has internal linkage: a symbol shared with another unit could
// carry instructions that the processor lacks.
#include <cstring>

#include "kernels.h"

namespace mmadder::cpu {
namespace {

constexpr float kZeros[kBlock] = {};

template <class V, Form kForm, int kStep, int kVectors, int kTile>
void l1_distance_f32(
    const float* x, const Step* steps, int64_t num_steps, const float* w,
    const float* x_sums, const float* w_sums, bool add, float* sums) {
  constexpr int kLanes = V::lanes;
  const auto one = V::one();
  typename V::type acc[kTile][kVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v)
      acc[t][v] = V::zero();

  for (int64_t s = 0; s < num_steps; ++s) {
    const float* xs = x + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; ++c) {
        typename V::type wv[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v)
          wv[v] = V::load(w + (c * kVectors + v) * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTile; ++t) {
          const typename V::Broadcast xv(xs + t * kStep * kBlock + c);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v)
            acc[t][v] = V::add_by_fma(
                kForm == kMax ? V::max(wv[v], xv) : V::distance(wv[v], xv),
                acc[t][v], one);
        }
      }
      w += kQuad * kVectors * kLanes;
      xs += kQuad;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* sum = sums + (t * kVectors + v) * kLanes;
      auto value = acc[t][v];
      if (kForm == kMax)
        value = V::sub(
            value, V::add(V::set(x_sums[t]), V::load(w_sums + v * kLanes)));
      V::store(sum, add ? V::add(V::load(sum), value) : value);
    }
}

template <class V, InputGradient kSlope, int kVectors, int kTile>
void input_grad_f32(
    const float* grad, const Step* steps, int64_t num_steps, const float* w,
    const float* x, int64_t x_stride, int64_t vector_stride, bool add,
    float* grad_x) {
  constexpr int kLanes = V::lanes;
  const auto one = V::one();
  typename V::type acc[kTile][kVectors], xv[kTile][kVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      acc[t][v] = V::zero();
      xv[t][v] = V::load(x + t * x_stride + v * vector_stride);
    }

  for (int64_t s = 0; s < num_steps; ++s) {
    const float* gs = grad + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; ++c) {
        typename V::type wv[kVectors];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v)
          wv[v] = V::load(w + (c * kVectors + v) * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTile; ++t) {
          const typename V::Broadcast gv(gs + t * kBlock + c);
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            const bool by_fma =
                V::sub_only_by_fma || (t * kVectors + v) % 2 == 1;
            const auto difference = by_fma
                ? V::sub_by_fma(wv[v], xv[t][v], one)
                : V::sub(wv[v], xv[t][v]);
            acc[t][v] = V::multiply_add(
                kSlope == kSign ? V::sign(difference) : V::clip(difference),
                gv, acc[t][v]);
          }
        }
      }
      w += kQuad * kVectors * kLanes;
      gs += kQuad;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* out = grad_x + t * x_stride + v * vector_stride;
      const auto value = V::keep_nan(xv[t][v], acc[t][v]);
      V::store(out, add ? V::add(V::load(out), value) : value);
    }
}

// V::transpose fills a tile of [channel][16 positions] on the stack; where
// positions are fewer, a second one stands for output and residual.
template <class V>
bool store_f32(
    const float* sums, int64_t sums_stride, int64_t positions,
    int64_t channels, float factor, const float* means, const float* limits,
    const Epilogue& epilogue, float* dst, int64_t dst_stride) {
  alignas(64) float tile[kBlock][kBlock], part[kBlock] = {};
  V::transpose(sums, sums_stride, positions, channels, kZeros, tile[0]);
  const bool whole = positions == kBlock;
  const size_t bytes = positions * sizeof(float);
  bool below = false;
  for (int64_t c = 0; c < channels; ++c) {
    float* out = whole ? dst + c * dst_stride : part;
    const float* residual =
        epilogue.residual ? epilogue.residual + c * dst_stride : nullptr;
    if (residual && !whole)
      residual = static_cast<float*>(std::memcpy(part, residual, bytes));
    if (limits && !whole)  // no false alarm from what is not there
      for (int64_t p = positions; p < kBlock; ++p)
        tile[c][p] = limits[c];
#pragma GCC unroll 4
    for (int i = 0; i < kBlock; i += V::lanes) {
      auto sum = V::load(tile[c] + i);
      if (limits)
        below |= V::any_below(sum, V::set(limits[c]));
      if (means)
        sum = V::sub(sum, V::load(means + i));
      auto y = V::mul(sum, V::set(factor));
      if (epilogue.scale)
        y = V::multiply_add(
            V::sub(y, V::set(epilogue.mean[c])), V::set(epilogue.scale[c]),
            V::set(epilogue.bias[c]));
      if (residual)
        y = V::add(y, V::load(residual + i));
      if (epilogue.relu)
        y = V::relu(y);
      V::store(out + i, y);
    }
    if (!whole)
      std::memcpy(dst + c * dst_stride, part, bytes);
  }
  return !below;
}

template <class V>
bool store_blocked_f32(
    const float* sums, int64_t sums_stride, int64_t positions, float factor,
    const float* means, const float* limits, const Epilogue& epilogue,
    float* dst) {
  const auto mean = V::load(epilogue.mean), scale = V::load(epilogue.scale);
  const auto bias = V::load(epilogue.bias);
  const auto factors = V::set(factor);
  const auto limit = limits ? V::load(limits) : V::zero();
  bool below = false;
  for (int64_t p = 0; p < positions; ++p) {
    auto sum = V::load(sums + p * sums_stride);
    if (limits)
      below |= V::any_below(sum, limit);
    if (means)
      sum = V::sub(sum, V::set(means[p]));
    auto y = V::multiply_add(V::sub(V::mul(sum, factors), mean), scale, bias);
    if (epilogue.residual)
      y = V::add(y, V::load(epilogue.residual + p * kBlock));
    if (epilogue.relu)
      y = V::relu(y);
    V::store(dst + p * kBlock, y);
  }
  return !below;
}

template <class V>
void max_pool_f32(
    const float* x, int64_t row_stride, int64_t column_stride, int64_t rows,
    int64_t columns, int64_t step, int64_t positions, bool relu, float* dst) {
  constexpr int kParts = kBlock / V::lanes;
  for (int64_t p = 0; p < positions; ++p, x += step, dst += kBlock) {
    typename V::type largest[kParts];
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i)
      largest[i] = V::load(x + i * V::lanes);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        const float* in = x + r * row_stride + c * column_stride;
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) {
          const auto value = V::load(in + i * V::lanes);
          largest[i] = V::keep_nan(value, V::larger(value, largest[i]));
        }
      }
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i)
      V::store(dst + i * V::lanes, relu ? V::relu(largest[i]) : largest[i]);
  }
}

template <class V>
void lane_sums_f32(
    const float* sums, int64_t lanes, int64_t positions, double* totals) {
  for (int64_t p = 0; p < positions; ++p, sums += lanes) {
    auto sum = V::load(sums);
    for (int64_t l = V::lanes; l < lanes; l += V::lanes)
      sum = V::add(sum, V::load(sums + l));
    totals[p] += V::sum(sum);
  }
}

template <class V, int kVectors>
void weight_sums_f32(
    const float* w, int64_t rows, float* half_sums, float* distances) {
  typename V::type sum[kVectors], distance[kVectors];
  for (int v = 0; v < kVectors; ++v)
    sum[v] = V::zero(), distance[v] = V::load(distances + v * V::lanes);
  const typename V::Broadcast zero(kZeros);
  for (int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      const auto wv = V::load(w + (r * kVectors + v) * V::lanes);
      sum[v] = V::add(sum[v], wv);
      distance[v] = V::add(distance[v], V::distance(wv, zero));
    }
  for (int v = 0; v < kVectors; ++v) {
    V::store(half_sums + v * V::lanes, V::mul(sum[v], V::set(0.5f)));
    V::store(distances + v * V::lanes, distance[v]);
  }
}

template <class V>
void channel_sums_f32(
    const float* packed, int64_t block_stride, int64_t blocks, int64_t pixels,
    int64_t pixel_stride, float* sums) {
  for (int64_t p = 0; p < pixels; ++p) {
    auto sum = V::zero();
    for (int64_t b = 0; b < blocks; ++b)
      for (int i = 0; i < kBlock; i += V::lanes)
        sum = V::add(
            sum, V::load(packed + b * block_stride + p * pixel_stride + i));
    sums[p] = 0.5f * V::sum(sum);
  }
}

// A transpose element by element, for tails and for plain code.
void transpose_scalar(
    const float* src, int64_t src_stride, int64_t rows, int64_t columns,
    const float* shift, float* dst) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < kBlock; ++r)
      dst[c * kBlock + r] =
          (r < rows ? src[r * src_stride + c] : 0.f) - shift[r];
}

// Fill the tables for tiles of kTile positions and fewer.
template <class V, int kVectors, int kTile>
void set_l1_distance(Kernels& table) {
  table.l1_distance[kExact][0][kVectors][kTile] =
      l1_distance_f32<V, kExact, 1, kVectors, kTile>;
  table.l1_distance[kExact][1][kVectors][kTile] =
      l1_distance_f32<V, kExact, 2, kVectors, kTile>;
  table.l1_distance[kMax][0][kVectors][kTile] =
      l1_distance_f32<V, kMax, 1, kVectors, kTile>;
  table.l1_distance[kMax][1][kVectors][kTile] =
      l1_distance_f32<V, kMax, 2, kVectors, kTile>;
  if constexpr (kTile > 1)
    set_l1_distance<V, kVectors, kTile - 1>(table);
}

template <class V, int kVectors, int kTile>
void set_input_grad(Kernels& table) {
  if constexpr (kTile > 0) {
    table.input_grad[kHardtanh][kVectors][kTile] =
        input_grad_f32<V, kHardtanh, kVectors, kTile>;
    table.input_grad[kSign][kVectors][kTile] =
        input_grad_f32<V, kSign, kVectors, kTile>;
    set_input_grad<V, kVectors, kTile - 1>(table);
  }
}

// The numbers are the most positions in a tile of one and of two vectors.
template <class V, int kForward1, int kForward2, int kGrad1, int kGrad2>
Kernels make_kernels(const char* name) {
  Kernels table{};
  table.name = name;
  table.lanes = V::lanes;
  table.clip_hides_nan = V::clip_hides_nan;
  table.forward_tile[1] = kForward1;
  table.forward_tile[2] = kForward2;
  table.input_grad_tile[1] = kGrad1;
  table.input_grad_tile[2] = kGrad2;
  set_l1_distance<V, 1, kForward1>(table);
  set_l1_distance<V, 2, kForward2>(table);
  set_input_grad<V, 1, kGrad1>(table);
  set_input_grad<V, 2, kGrad2>(table);
  table.transpose = V::transpose;
  table.store = store_f32<V>;
  table.store_blocked = store_blocked_f32<V>;
  table.max_pool = max_pool_f32<V>;
  table.lane_sums = lane_sums_f32<V>;
  table.channel_sums = channel_sums_f32<V>;
  table.weight_sums[1] = weight_sums_f32<V, 1>;
  table.weight_sums[2] = weight_sums_f32<V, 2>;
  return table;
}

}  // namespace
}  // namespace mmadder::cpu
