// The 8-bit microkernel, written once over a vector type of bytes; included
// like microkernels.h. Such a type V has
//   outputs: output channels in a vector, eight bytes (input channels) each;
//   type, zero, load; broadcast: eight bytes for all outputs;
//   add_distance(sum, a, b): sum + |a - b| over the eight bytes;
//   add_to(int32_t* sums, type, bool add).
#include "kernels.h"

namespace mmadder::cpu {
namespace {

template <class V, int kTile>
void l1_distance_u8(const uint8_t* x, const Step* steps, int64_t num_steps,
                    const uint8_t* w, bool add, int32_t* sums) {
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
        const auto xv = V::broadcast(xs + t * kBlockBytes);
#pragma GCC unroll 2
        for (int v = 0; v < kMaxVectors; ++v)
          acc[t][v] = V::add_distance(acc[t][v], wv[v], xv);
      }
      w += kMaxVectors * kBytes;
      xs += 8;
    }
  }

#pragma GCC unroll 16
  for (int t = 0; t < kTile; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < kMaxVectors; ++v)
      V::add_to(sums + (t * kMaxVectors + v) * V::outputs, acc[t][v], add);
}

template <class V, int kTile>
void set_l1_distance_u8(Kernels& table) {
  table.byte_outputs = V::outputs;
  if (table.byte_tile < kTile)
    table.byte_tile = kTile;
  table.l1_distance_u8[kTile] = l1_distance_u8<V, kTile>;
  if constexpr (kTile > 1)
    set_l1_distance_u8<V, kTile - 1>(table);
}

}  // namespace
}  // namespace mmadder::cpu
