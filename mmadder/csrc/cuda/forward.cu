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
    const StreamLauncher launch{stream, &error};
    const T* const w = static_cast<const T*>(weight);
    dispatch_pack(launch, plan, shape, w, packed);
    dispatch_forward(
        launch, plan, shape,
        ForwardArguments<T, NoEpilogue>{
            static_cast<const T*>(input),
            w,
            packed,
            partial,
            static_cast<T*>(output),
            {plan.center}});
  });
  return error;
}

}  // namespace cuda
}  // namespace mmadder
