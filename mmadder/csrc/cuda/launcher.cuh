// Kernel calls on a GPU, for dispatch.h.
#pragma once

#include "dispatch.h"
#include "launch.h"

namespace mmadder {
namespace cuda {

// Launches on the stream until one launch fails.
struct StreamLauncher {
  cudaStream_t stream;
  cudaError_t* error;

  template <typename Kernel, typename... Arguments>
  void operator()(Kernel kernel, unsigned blocks, int threads,
                  Arguments... arguments) const {
    if (*error != cudaSuccess)
      return;
    kernel<<<blocks, threads, 0, stream>>>(arguments...);
    *error = cudaGetLastError();
  }
};

// Calls run(T{}) with the type of dtype.
template <typename Run>
void with_type(DType dtype, const Run& run) {
  switch (dtype) {
    case DType::kFloat: return run(float{});
    case DType::kHalf: return run(__half{});
    case DType::kBFloat16: return run(__nv_bfloat16{});
    case DType::kDouble: return run(double{});
  }
}

}  // namespace cuda
}  // namespace mmadder
