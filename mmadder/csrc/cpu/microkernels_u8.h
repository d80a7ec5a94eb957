// The kernels of codes, written once over a vector type of bytes and one of
// int32; included like microkernels.h. A type V of bytes has
//   outputs: output channels in a vector, eight bytes (input channels) each;
//   type, zero, load, store; larger: the larger byte of two;
//   broadcast: eight bytes for all outputs;
//   add_distance(sum, a, b): sum + |a - b| over the eight bytes;
//   store_sums(int32_t* sums, const type (&)[2], bool add).
// A type I of int32, which wrap around, has
//   lanes, twice V::outputs;
//   type, zero, set, load, store, add, sub, mul, min, max;
//   load_codes, store_codes: of as many bytes;
//   whole: t in whole codes, rounded down; sum of all lanes;
//   Multiplier(address, shift), whose scaled(acc) is the low half of
//   (acc * multiplier + 2^(shift - 1)) >> shift, in 64 bits;
//   load_quads of int8, broadcast_quad of uint8 for all lanes;
//   add_products(sum, w, x): sum + the four products in each lane.
#include "kernels.h"

namespace mmadder::cpu {
namespace {

template <class V, int kStep, int kTile>
void l1_distance_u8(
    const uint8_t* x, const Step* steps, int64_t num_steps, const uint8_t* w,
    const uint8_t* ahead, int64_t ahead_step, bool add, int32_t* sums) {
  constexpr int kBytes = 8 * V::outputs;
  typename V::type acc[kTile][kMaxVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kMaxVectors; ++v)
      acc[t][v] = V::zero();

  for (int64_t s = 0; s < num_steps; ++s) {
    const uint8_t* xs = x + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
      typename V::type wv[kMaxVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kMaxVectors; ++v)
        wv[v] = V::load(w + v * kBytes);
#pragma GCC unroll 16
      for (int t = 0; t < kTile; ++t) {
        const auto xv = V::broadcast(xs + t * kStep * kBlockBytes);
#pragma GCC unroll 2
        for (int v = 0; v < kMaxVectors; ++v)
          acc[t][v] = V::add_distance(acc[t][v], wv[v], xv);
      }
      __builtin_prefetch(ahead);
      ahead += ahead_step;
      w += kMaxVectors * kBytes;
      xs += 8;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
    V::store_sums(sums + t * kMaxVectors * V::outputs, acc[t], add);
}

template <class I>
void code_totals(const int32_t* sums, int64_t block_stride, int64_t blocks,
                 int64_t positions, int32_t* totals) {
  for (int64_t p = 0; p < positions; ++p, sums += I::lanes) {
    auto sum = I::load(sums);
    for (int64_t b = 1; b < blocks; ++b)
      sum = I::add(sum, I::load(sums + b * block_stride));
    totals[p] = I::sum(sum);
  }
}

template <class I, int kTile>
void products_u8(const uint8_t* x, int64_t x_stride, const Step* steps,
                 int64_t num_steps, const int8_t* w, bool add, int32_t* sums) {
  typename I::type acc[kTile][kMaxVectors];
#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kMaxVectors; ++v)
      acc[t][v] =
          add ? I::load(sums + (t * kMaxVectors + v) * I::lanes) : I::zero();

  for (int64_t s = 0; s < num_steps; ++s) {
    const uint8_t* xs = x + steps[s].offset;
    for (int64_t q = 0; q < steps[s].quads; ++q) {
      typename I::type wv[kMaxVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kMaxVectors; ++v)
        wv[v] = I::load_quads(w + v * 4 * I::lanes);
#pragma GCC unroll 16
      for (int t = 0; t < kTile; ++t) {
        const auto xv = I::broadcast_quad(xs + t * x_stride);
#pragma GCC unroll 2
        for (int v = 0; v < kMaxVectors; ++v)
          acc[t][v] = I::add_products(acc[t][v], wv[v], xv);
      }
      w += kMaxVectors * 4 * I::lanes;
      xs += 4;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kMaxVectors; ++v)
      I::store(sums + (t * kMaxVectors + v) * I::lanes, acc[t][v]);
}

template <class I>
void requantize(
    const int32_t* sums, int64_t sums_stride, int64_t positions,
    const int32_t* totals, const Requantization& r, const uint8_t* residual,
    uint8_t* dst) {
  const typename I::Multiplier multiplier(r.multiplier, r.shift);
  const bool limited = r.least != nullptr;
  const auto least = limited ? I::load(r.least) : I::zero();
  const auto most = limited ? I::load(r.most) : I::zero();
  const auto offset = r.offset ? I::load(r.offset) : I::zero();
  const auto bias = I::load(r.bias), highest = I::load(r.highest);
  const auto low = I::set(r.low), zero_point = I::set(r.zero_point);
  const auto filters = I::set(r.filters);
  for (int64_t p = 0; p < positions; ++p) {
    auto acc = I::load(sums + p * sums_stride);
    if (totals)
      acc = I::sub(I::set(totals[p]), I::mul(acc, filters));
    else if (r.offset)
      acc = I::add(acc, offset);
    else
      acc = I::sub(I::zero(), acc);
    if (limited)
      acc = I::max(I::min(acc, most), least);
    auto t = multiplier.scaled(acc);
    if (limited)
      t = I::max(I::min(t, I::set((1 << 30) - 1)), I::set(-(1 << 30)));
    t = I::add(t, bias);
    if (residual)
      t = I::add(t,
                 I::mul(I::load_codes(residual + p * kBlockBytes),
                        I::set(r.residual_multiplier)));
    const auto code = I::add(I::whole(t), zero_point);
    I::store_codes(dst + p * kBlockBytes, I::min(I::max(code, low), highest));
  }
}

template <class I>
void add_codes(const uint8_t* a, const uint8_t* b, const int64_t* columns,
               int64_t positions, const CodeSum& sum, uint8_t* dst) {
  const auto times_a = I::set(sum.multiplier_a);
  const auto times_b = I::set(sum.multiplier_b);
  const auto offset = I::set(sum.offset), low = I::set(sum.low);
  const auto zero_point = I::set(sum.zero_point);
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t i = 0; i < kBlockBytes; i += I::lanes) {
      const auto left = I::load_codes(a + p * kBlockBytes + i);
      const auto right = I::load_codes(b + columns[p] * kBlockBytes + i);
      const auto t = I::add(
          I::add(I::mul(left, times_a), I::mul(right, times_b)), offset);
      const auto code = I::add(I::whole(t), zero_point);
      I::store_codes(dst + p * kBlockBytes + i,
                     I::min(I::max(code, low), I::load(sum.highest + i)));
    }
}

template <class V>
void max_pool_codes(
    const uint8_t* x, int64_t row_stride, int64_t column_stride, int64_t rows,
    int64_t columns, int64_t step, int64_t positions, uint8_t* dst) {
  constexpr int kBytes = 8 * V::outputs, kParts = kBlockBytes / kBytes;
  for (int64_t p = 0; p < positions; ++p, x += step, dst += kBlockBytes) {
    typename V::type largest[kParts];
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i)
      largest[i] = V::load(x + i * kBytes);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i)
          largest[i] = V::larger(
              largest[i],
              V::load(x + r * row_stride + c * column_stride + i * kBytes));
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i)
      V::store(dst + i * kBytes, largest[i]);
  }
}

template <class V, int kTile>
void set_l1_distance_u8(Kernels& table) {
  table.l1_distance_u8[0][kTile] = l1_distance_u8<V, 1, kTile>;
  table.l1_distance_u8[1][kTile] = l1_distance_u8<V, 2, kTile>;
  if constexpr (kTile > 1)
    set_l1_distance_u8<V, kTile - 1>(table);
}

template <class I, int kTile>
void set_products(Kernels& table) {
  table.products[kTile] = products_u8<I, kTile>;
  if constexpr (kTile > 1)
    set_products<I, kTile - 1>(table);
}

// Fills the table for tiles of kTile positions and fewer.
template <class V, class I, int kTile>
void set_code_kernels(Kernels& table) {
  static_assert(I::lanes == kMaxVectors * V::outputs);
  table.byte_outputs = V::outputs;
  table.byte_tile = kTile;
  table.int_lanes = I::lanes;
  set_l1_distance_u8<V, kTile>(table);
  set_products<I, kTile>(table);
  table.code_totals = code_totals<I>;
  table.requantize = requantize<I>;
  table.add_codes = add_codes<I>;
  table.max_pool_codes = max_pool_codes<V>;
}

}  // namespace
}  // namespace mmadder::cpu
