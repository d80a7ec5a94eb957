// Four lanes in the compiler's own vectors: SSE2, NEON or plain code.
#include <cstdint>
#include <cstring>

namespace mmadder::cpu {
namespace {

struct Vector {
  typedef float type __attribute__((vector_size(16)));
  typedef int32_t mask __attribute__((vector_size(16)));
  static constexpr int lanes = 4;

  static type zero() { return type{}; }
  static type load(const float* p) {
    type v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void store(float* p, type v) { std::memcpy(p, &v, sizeof(v)); }
  static type broadcast(const float* p) { return type{} + *p; }
  static type one() { return type{} + 1.f; }
  static type add(type a, type b) { return a + b; }
  static type sub(type a, type b) { return a - b; }
  static type abs(type a) { return (type)((mask)a & 0x7fffffff); }
  static type multiply_add(type a, type b, type c) { return a * b + c; }
  // Without FMA the multiplication would be in vain.
  static type add_by_fma(type a, type b, type) { return a + b; }
  static type sub_by_fma(type a, type b, type) { return a - b; }
  static type select(mask m, type a, type b) {
    return (type)((m & (mask)a) | (~m & (mask)b));
  }
  // A comparison with NaN is false, so both keep NaN.
  static type clip(type a) {
    const type one = type{} + 1.f;
    return select(a > one, one, select(a < -one, -one, a));
  }
  static type sign(type a) {
    const type one = type{} + 1.f;
    return select(a > 0.f, one, select(a < 0.f, -one, a));
  }
};

}  // namespace
}  // namespace mmadder::cpu

#include "microkernels.h"

namespace mmadder::cpu {

const Kernels& portable_kernels() {
  static const Kernels table =
      make_kernels</*vectors=*/2, /*forward tile=*/4, /*gradient tile=*/4>(
          "portable", transpose_scalar);
  return table;
}

}  // namespace mmadder::cpu
