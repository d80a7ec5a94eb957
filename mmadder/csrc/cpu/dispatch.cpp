// Picks the microkernels by the processor's features, once per process.
#include <ATen/ATen.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "kernels.h"

namespace mmadder::cpu {
namespace {

#if defined(__x86_64__)
// AMD's family 25 with AVX-512.
bool is_zen4() {
  unsigned eax = 0, ebx, ecx, edx;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  const unsigned family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
  return __builtin_cpu_is("amd") && family == 25;
}
#endif

// Best first.
std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    tables = {&avx512_kernels(), &avx512_zen4_kernels()};
    if (is_zen4())
      std::swap(tables[0], tables[1]);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    tables.push_back(&avx2_kernels());
#endif
  tables.push_back(&portable_kernels());
  return tables;
}

const Kernels& choose_kernels() {
  const auto tables = supported_kernels();
  const char* wanted = std::getenv("MMADDER_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0')
    return *tables.front();
  std::string names;
  for (const Kernels* table : tables) {
    if (std::string(wanted) == table->name)
      return *table;
    names += std::string(names.empty() ? "" : ", ") + table->name;
  }
  TORCH_CHECK(false, "MMADDER_CPU_ISA=", wanted,
              " is not supported here; this processor runs: ", names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace mmadder::cpu
