// AVX-512 with the input broadcast to a register: Intel's processors, Zen 5.
#if defined(__x86_64__)
#include "avx512_vectors.h"

namespace mmadder::cpu {

const Kernels& avx512_kernels() {
  static const Kernels table = [] {
    auto kernels = make_kernels<Vector, 16, 10, 12, 6>("avx512");
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
