// AVX2 with FMA: eight lanes, sixteen registers.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>

#include <cstdint>

namespace mmadder::cpu {
namespace {

struct Vector {
  typedef __m256 type;
  static constexpr int lanes = 8;

  static type zero() { return _mm256_setzero_ps(); }
  static type load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, type v) { _mm256_storeu_ps(p, v); }
  static type broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static type one() {
    type v = _mm256_set1_ps(1.f);
    asm("" : "+x"(v));  // opaque
    return v;
  }
  static type add(type a, type b) { return _mm256_add_ps(a, b); }
  static type sub(type a, type b) { return _mm256_sub_ps(a, b); }
  static type abs(type a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a);
  }
  static type multiply_add(type a, type b, type c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  static type add_by_fma(type a, type b, type one) {
    return _mm256_fmadd_ps(a, one, b);
  }
  static type sub_by_fma(type a, type b, type one) {
    return _mm256_fmsub_ps(a, one, b);
  }
  // min and max return their second operand if one is NaN.
  static type clip(type a) {
    const type one = _mm256_set1_ps(1.f);
    return _mm256_max_ps(
        _mm256_set1_ps(-1.f), _mm256_min_ps(one, a));
  }
  static type sign(type a) {
    const type one = _mm256_set1_ps(1.f);
    const type signed_one = _mm256_or_ps(
        one, _mm256_and_ps(_mm256_set1_ps(-0.f), a));
    const type not_zero_or_nan =
        _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_NEQ_OQ);
    return _mm256_blendv_ps(a, signed_one, not_zero_or_nan);
  }
};

}  // namespace
}  // namespace mmadder::cpu

#include "microkernels.h"

namespace mmadder::cpu {
namespace {

void transpose_8x8(
    const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
    float scale) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    r[i] = _mm256_mul_ps(
        _mm256_loadu_ps(src + i * src_stride), _mm256_set1_ps(scale));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // pairs of rows
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // quads of rows
    const int b = 4 * i;
    r[b] = _mm256_shuffle_ps(t[b], t[b + 2], 0x44);
    r[b + 1] = _mm256_shuffle_ps(t[b], t[b + 2], 0xee);
    r[b + 2] = _mm256_shuffle_ps(t[b + 1], t[b + 3], 0x44);
    r[b + 3] = _mm256_shuffle_ps(t[b + 1], t[b + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // halves
    _mm256_storeu_ps(
        dst + i * dst_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_storeu_ps(
        dst + (i + 4) * dst_stride,
        _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
  }
}

void transpose_avx2(
    const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
    int64_t rows, int64_t columns, float scale) {
  for (int64_t r = 0; r < rows; r += 8)
    for (int64_t c = 0; c < columns; c += 8) {
      const float* s = src + r * src_stride + c;
      float* d = dst + c * dst_stride + r;
      if (rows - r >= 8 && columns - c >= 8)
        transpose_8x8(s, src_stride, d, dst_stride, scale);
      else
        transpose_scalar(
            s, src_stride, d, dst_stride, rows - r < 8 ? rows - r : 8,
            columns - c < 8 ? columns - c : 8, scale);
    }
}

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels table =
      make_kernels</*vectors=*/2, /*forward tile=*/5, /*gradient tile=*/5>(
          "avx2", transpose_avx2);
  return table;
}

}  // namespace mmadder::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
