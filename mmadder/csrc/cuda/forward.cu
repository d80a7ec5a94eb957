#include "launcher.cuh"

namespace mmadder {
namespace cuda {

cudaError_t launch_forward(
    DType dtype, const Plan& plan, const Shape& shape, const void* input,
    const void* weight, void* packed, float* partial, void* output,
    cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatch_forward<T>(
        StreamLauncher{stream, &error}, plan, shape,
        {static_cast<const T*>(input), static_cast<const T*>(weight), packed,
         partial, static_cast<T*>(output)});
  });
  return error;
}

}  // namespace cuda
}  // namespace mmadder
