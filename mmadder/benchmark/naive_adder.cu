// A plain adder convolution on unfolded input, for comparison: the structure
// of AdderNetCUDA (github.com/LingYeAI/AdderNetCUDA), written anew. 16x16
// tiles in shared memory, one output per thread, Kahan's sum; gradients added
// by atomics. tools/benchmark.py --device cuda compiles and times it.
#ifndef NAIVE_KERNELS_ONLY
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/extension.h>
#endif

constexpr int kTile = 16;

// columns (N, K, P), weight (M, K), output (N, M, P).
__global__ void naive_adder_forward_kernel(
    const float* __restrict__ columns, const float* __restrict__ weight,
    float* __restrict__ output, int K, int P, int M) {
  __shared__ float w[kTile][kTile], x[kTile][kTile];
  const int p = blockIdx.x * kTile + threadIdx.x;
  const int m = blockIdx.y * kTile + threadIdx.y;
  const float* image = columns + (long long)blockIdx.z * K * P;
  float sum = 0.f, lost = 0.f;
  for (int k0 = 0; k0 < K; k0 += kTile) {
    const int kx = k0 + threadIdx.y, kw = k0 + threadIdx.x;
    x[threadIdx.y][threadIdx.x] =
        kx < K && p < P ? image[(long long)kx * P + p] : 0.f;
    w[threadIdx.y][threadIdx.x] =
        kw < K && m < M ? weight[(long long)m * K + kw] : 0.f;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kTile; ++k) {
      const float term = fabsf(x[k][threadIdx.x] - w[threadIdx.y][k]) - lost;
      const float next = sum + term;
      lost = (next - sum) - term;
      sum = next;
    }
    __syncthreads();
  }
  if (p < P && m < M)
    output[((long long)blockIdx.z * M + m) * P + p] = -sum;
}

// grad_columns and grad_weight are zero before. One thread per output.
__global__ void naive_adder_backward_kernel(
    const float* __restrict__ grad_output, const float* __restrict__ columns,
    const float* __restrict__ weight, float* __restrict__ grad_columns,
    float* __restrict__ grad_weight, int K, int P, int M) {
  const int p = blockIdx.x * kTile + threadIdx.x;
  const int m = blockIdx.y * kTile + threadIdx.y;
  if (p >= P || m >= M)
    return;
  const long long image = (long long)blockIdx.z * K * P;
  const float g = grad_output[((long long)blockIdx.z * M + m) * P + p];
  for (int k = 0; k < K; ++k) {
    const long long at = image + (long long)k * P + p;
    const float t = weight[(long long)m * K + k] - columns[at];
    atomicAdd(grad_columns + at, g * fminf(fmaxf(t, -1.f), 1.f));
    atomicAdd(grad_weight + (long long)m * K + k, -g * t);
  }
}

#ifndef NAIVE_KERNELS_ONLY
namespace {

dim3 blocks_of(const at::Tensor& columns, const at::Tensor& weight) {
  return dim3((columns.size(2) + kTile - 1) / kTile,
              (weight.size(0) + kTile - 1) / kTile, columns.size(0));
}

at::Tensor forward(const at::Tensor& columns, const at::Tensor& weight) {
  const c10::cuda::CUDAGuard guard(columns.device());
  const int M = weight.size(0), K = weight.size(1), P = columns.size(2);
  auto output = at::empty({columns.size(0), M, P}, columns.options());
  naive_adder_forward_kernel<<<blocks_of(columns, weight), dim3(kTile, kTile),
                               0, c10::cuda::getCurrentCUDAStream()>>>(
      columns.const_data_ptr<float>(), weight.const_data_ptr<float>(),
      output.mutable_data_ptr<float>(), K, P, M);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return output;
}

std::vector<at::Tensor> backward(
    const at::Tensor& grad_output, const at::Tensor& columns,
    const at::Tensor& weight) {
  const c10::cuda::CUDAGuard guard(columns.device());
  const int M = weight.size(0), K = weight.size(1), P = columns.size(2);
  auto grad_columns = at::zeros_like(columns);
  auto grad_weight = at::zeros_like(weight);
  naive_adder_backward_kernel<<<blocks_of(columns, weight), dim3(kTile, kTile),
                                0, c10::cuda::getCurrentCUDAStream()>>>(
      grad_output.const_data_ptr<float>(), columns.const_data_ptr<float>(),
      weight.const_data_ptr<float>(), grad_columns.mutable_data_ptr<float>(),
      grad_weight.mutable_data_ptr<float>(), K, P, M);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {grad_columns, grad_weight};
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
#endif
