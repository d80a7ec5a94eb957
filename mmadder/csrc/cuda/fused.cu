#include "launcher.cuh"

namespace mmadder {
namespace cuda {

cudaError_t launch_pack(
    const Shape& shape, const float* weight, float* packed,
    cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  run_pack(StreamLauncher{stream, &error}, shape, packed_forward(shape),
           weight, packed);
  return error;
}

cudaError_t launch_fused(
    const Plan& plan, const Shape& shape, const FusedArguments& arguments,
    cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  dispatch_forward(StreamLauncher{stream, &error}, plan, shape, arguments);
  return error;
}

}  // namespace cuda
}  // namespace mmadder
