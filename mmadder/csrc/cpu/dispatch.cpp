// Picks the microkernels by the processor's features, once per process.
#include <ATen/ATen.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "kernels.h"

namespace mmadder::cpu {
namespace {

// Best first.
std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
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
  TORCH_CHECK(
      false, "MMADDER_CPU_ISA=", wanted, " is not supported here; this "
      "processor runs: ", names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

}  // namespace mmadder::cpu
