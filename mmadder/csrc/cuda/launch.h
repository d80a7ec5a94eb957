// Entry points of the compiled kernels, by raw pointers: nvcc sees no torch
// header, and the host compiler no kernel.
#pragma once

#include <cuda_runtime_api.h>

#include "plan.h"

namespace mmadder {
namespace cuda {

// Tensors are contiguous, of one dtype; packed and partial have the plan's
// sizes. Returns the first error of a launch.
cudaError_t launch_forward(
    DType dtype, const Plan& plan, const Shape& shape, const void* input,
    const void* weight, void* packed, float* partial, void* output,
    cudaStream_t stream);

cudaError_t launch_input_grad(
    DType dtype, const Plan& plan, const Shape& shape, InputGradient form,
    const void* grad_output, const void* input, const void* weight,
    void* packed, float* partial, void* grad_input, cudaStream_t stream);

// A float32 weight to the layout of packed_forward(shape), which has some.
cudaError_t launch_pack(
    const Shape& shape, const float* weight, float* packed,
    cudaStream_t stream);

cudaError_t launch_fused(
    const Plan& plan, const Shape& shape, const FusedArguments& arguments,
    cudaStream_t stream);

}  // namespace cuda
}  // namespace mmadder
