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

#include "microkernels.h"
#include "microkernels_u8.h"

namespace mmadder::cpu {
namespace {

void transpose_8x8(
    const float* src, int64_t src_stride, __m256 shift, float* dst) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    r[i] = _mm256_loadu_ps(src + i * src_stride);
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
    const __m256 low = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    const __m256 high = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    _mm256_storeu_ps(dst + i * kBlock, _mm256_sub_ps(low, shift));
    _mm256_storeu_ps(dst + (i + 4) * kBlock, _mm256_sub_ps(high, shift));
  }
}

struct Vector {
  typedef __m256 type;
  static constexpr int lanes = 8;
  static constexpr bool clip_hides_nan = false;

  static type zero() { return _mm256_setzero_ps(); }
  static type set(float a) { return _mm256_set1_ps(a); }
  static type load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, type v) { _mm256_storeu_ps(p, v); }
  static type one() {
    type v = _mm256_set1_ps(1.f);
    asm("" : "+x"(v));  // opaque
    return v;
  }
  static type add(type a, type b) { return _mm256_add_ps(a, b); }
  static type sub(type a, type b) { return _mm256_sub_ps(a, b); }
  static type mul(type a, type b) { return _mm256_mul_ps(a, b); }
  static type multiply_add(type a, type b, type c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  static type add_by_fma(type a, type b, type one) {
    return _mm256_fmadd_ps(a, one, b);
  }
  static type sub_by_fma(type a, type b, type one) {
    return _mm256_fmsub_ps(a, one, b);
  }
  static bool any_below(type a, type b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NGE_UQ));
  }
  // min and max return their second operand if one is NaN.
  static type relu(type a) { return _mm256_max_ps(zero(), a); }
  static type clip(type a) {
    const type one = _mm256_set1_ps(1.f);
    return _mm256_max_ps(_mm256_set1_ps(-1.f), _mm256_min_ps(one, a));
  }
  static type sign(type a) {
    const type one = _mm256_set1_ps(1.f);
    const type signed_one =
        _mm256_or_ps(one, _mm256_and_ps(_mm256_set1_ps(-0.f), a));
    return _mm256_blendv_ps(
        a, signed_one, _mm256_cmp_ps(a, zero(), _CMP_NEQ_OQ));
  }
  static type keep_nan(type a, type b) {
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  static type larger(type a, type b) { return _mm256_max_ps(a, b); }
  static float sum(type a) {
    __m128 s =
        _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }

  struct Broadcast {
    type value;
    explicit Broadcast(const float* p) : value(_mm256_broadcast_ss(p)) {}
  };
  static type distance(type a, Broadcast b) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.f), _mm256_sub_ps(a, b.value));
  }
  static type max(type a, Broadcast b) { return _mm256_max_ps(a, b.value); }
  static type multiply_add(type a, Broadcast b, type c) {
    return _mm256_fmadd_ps(a, b.value, c);
  }

  static void transpose(
      const float* src, int64_t src_stride, int64_t rows, int64_t columns,
      const float* shift, float* dst) {
    if (rows < kBlock || columns < kBlock)
      return transpose_scalar(src, src_stride, rows, columns, shift, dst);
    for (int r = 0; r < kBlock; r += 8)
      for (int c = 0; c < kBlock; c += 8)
        transpose_8x8(src + r * src_stride + c, src_stride, load(shift + r),
                      dst + c * kBlock + r);
  }
};

struct Bytes {
  typedef __m256i type;
  static constexpr int outputs = 4;

  static type zero() { return _mm256_setzero_si256(); }
  static type load(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static type broadcast(const uint8_t* p) {
    int64_t eight;
    std::memcpy(&eight, p, sizeof(eight));
    return _mm256_set1_epi64x(eight);
  }
  static type add_distance(type sum, type a, type b) {
    return _mm256_add_epi64(sum, _mm256_sad_epu8(a, b));
  }
  static void add_to(int32_t* sums, type v, bool add) {
    alignas(32) int64_t wide[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(wide), v);
    for (int o = 0; o < outputs; ++o)
      sums[o] = (add ? sums[o] : 0) + static_cast<int32_t>(wide[o]);
  }
};

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels table = [] {
    auto kernels = make_kernels<Vector, 10, 5, 5, 0>("avx2");
    set_l1_distance_u8<Bytes, 5>(kernels);
    return kernels;
  }();
  return table;
}

}  // namespace mmadder::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
