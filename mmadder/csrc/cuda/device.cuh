// What the kernels use of the CUDA language. Without nvcc the same sources
// compile as C++ under the emulation header of tests/cuda; therefore kernels
// use no PTX and no warp intrinsics.
#pragma once

#include "shape.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline_primitives.h>
#define MMADDER_SHARED(T, name, n) __shared__ __align__(16) T name[n]
#define MMADDER_UNROLL _Pragma("unroll")
#define MMADDER_NO_UNROLL _Pragma("unroll 1")
#else
#include "cuda_emulation.h"
#endif

namespace mmadder {
namespace cuda {

template <typename A, typename B>
inline constexpr bool is_same = false;
template <typename A>
inline constexpr bool is_same<A, A> = true;

template <typename To>
struct Convert;

template <>
struct Convert<float> {
  static __device__ __forceinline__ float from(float v) { return v; }
  static __device__ __forceinline__ float from(__half v) {
    return __half2float(v);
  }
  static __device__ __forceinline__ float from(__nv_bfloat16 v) {
    return __bfloat162float(v);
  }
};

template <>
struct Convert<double> {
  static __device__ __forceinline__ double from(double v) { return v; }
};

template <>
struct Convert<__half> {
  static __device__ __forceinline__ __half from(__half v) { return v; }
  static __device__ __forceinline__ __half from(float v) {
    return __float2half_rn(v);
  }
};

template <>
struct Convert<__nv_bfloat16> {
  static __device__ __forceinline__ __nv_bfloat16 from(float v) {
    return __float2bfloat16_rn(v);
  }
};

template <typename To, typename From>
__device__ __forceinline__ To convert(From v) {
  return Convert<To>::from(v);
}

// N elements, moved by one instruction of up to 16 bytes.
template <typename T, int N>
struct alignas(N * sizeof(T)) Vector {
  T v[N];
};

template <typename T>
inline constexpr int kChunk = 16 / sizeof(T);  // elements of a 16-byte load

}  // namespace cuda
}  // namespace mmadder
