// AVX-512 for Zen 4.
#if defined(__x86_64__)
#include "avx512_vectors.h"

namespace mmadder::cpu {
namespace {

// Zen 4 broadcasts to 512 bits in a pipe that max and FMA need, unless the
// broadcast is part of the instruction that uses it: 59 against 42 G
// max + FMA per second and core. Zen 5 rather runs out of loads that way.
struct Zen4Vector : Vector {
  struct Broadcast {
    const float* address;
    explicit Broadcast(const float* p) : address(p) {}
  };
  static type distance(type a, Broadcast b) {
    type difference;
    asm("vsubps %2%{1to16%}, %1, %0"
        : "=v"(difference)
        : "v"(a), "m"(*b.address));
    return _mm512_abs_ps(difference);
  }
  static type max(type a, Broadcast b) {
    type larger;
    asm("vmaxps %2%{1to16%}, %1, %0" : "=v"(larger) : "v"(a), "m"(*b.address));
    return larger;
  }
  static type multiply_add(type a, Broadcast b, type c) {
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(a), "m"(*b.address));
    return c;
  }
  static type multiply_add(type a, type b, type c) {
    return Vector::multiply_add(a, b, c);
  }
};

}  // namespace

const Kernels& avx512_zen4_kernels() {
  static const Kernels table = [] {
    auto kernels = make_kernels<Zen4Vector, 16, 12, 14, 7>("avx512_zen4");
    set_avx512_code_kernels(kernels);
    return kernels;
  }();
  return table;
}

}  // namespace mmadder::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
