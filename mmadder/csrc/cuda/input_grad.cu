#include "launcher.cuh"

namespace mmadder {
namespace cuda {

cudaError_t launch_input_grad(
    DType dtype, const Plan& plan, const Shape& shape, InputGradient form,
    const void* grad_output, const void* input, const void* weight,
    void* packed, float* partial, void* grad_input, cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatch_input_grad<T>(
        StreamLauncher{stream, &error}, plan, shape, form,
        {static_cast<const T*>(grad_output), static_cast<const T*>(input),
         static_cast<const T*>(weight), packed, partial,
         static_cast<T*>(grad_input)});
  });
  return error;
}

}  // namespace cuda
}  // namespace mmadder
