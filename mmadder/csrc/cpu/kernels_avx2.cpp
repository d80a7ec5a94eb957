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
  // On Zen 3 min and max share their pipes with sums, not with FMA.
  static constexpr bool sub_only_by_fma = true;

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
  // In place: with sums that move from register to register, GCC spills.
  static type add_by_fma(type a, type b, type one) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(b) : "x"(a), "x"(one));
    return b;
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
  static type larger(type a, type b) { return _mm256_max_epu8(a, b); }
  static void store(uint8_t* p, type v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static void store_sums(int32_t* sums, const type (&v)[2], bool add) {
    // Low halves of quarters, which then go where they belong.
    const type mixed = _mm256_castps_si256(_mm256_shuffle_ps(
        _mm256_castsi256_ps(v[0]), _mm256_castsi256_ps(v[1]), 0x88));
    const type all = _mm256_permute4x64_epi64(mixed, 0xd8);
    auto* out = reinterpret_cast<__m256i*>(sums);
    _mm256_storeu_si256(
        out, add ? _mm256_add_epi32(_mm256_loadu_si256(out), all) : all);
  }
};

struct Ints {
  typedef __m256i type;
  static constexpr int lanes = 8;

  static type zero() { return _mm256_setzero_si256(); }
  static type set(int32_t a) { return _mm256_set1_epi32(a); }
  static type load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static type load_quads(const int8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void store(int32_t* p, type v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static type load_codes(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_codes(uint8_t* p, type v) {
    const __m128i words = _mm_packs_epi32(
        _mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(
        reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  static type add(type a, type b) { return _mm256_add_epi32(a, b); }
  static type sub(type a, type b) { return _mm256_sub_epi32(a, b); }
  static type mul(type a, type b) { return _mm256_mullo_epi32(a, b); }
  static type min(type a, type b) { return _mm256_min_epi32(a, b); }
  static type max(type a, type b) { return _mm256_max_epi32(a, b); }
  static type whole(type a) { return _mm256_srai_epi32(a, kFraction); }
  static int32_t sum(type a) {
    __m128i s = _mm_add_epi32(
        _mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

  // There is no arithmetic shift of 64 bits: 2^63 makes a number positive,
  // and what is left of that is taken off again.
  class Multiplier {
   public:
    Multiplier(const int32_t* p, int shift)
        : even_(load(p)),
          odd_(_mm256_srli_epi64(even_, 32)),
          rounding_(_mm256_set1_epi64x(static_cast<int64_t>(
              (uint64_t{1} << 63) + (uint64_t{1} << (shift - 1))))),
          surplus_(_mm256_set1_epi32(static_cast<int32_t>(
              static_cast<uint32_t>((uint64_t{1} << 63) >> shift)))),
          shift_(_mm256_set1_epi64x(shift)) {}

    type scaled(type acc) const {
      const type even = shifted(_mm256_mul_epi32(acc, even_));
      const type odd =
          shifted(_mm256_mul_epi32(_mm256_srli_epi64(acc, 32), odd_));
      return sub(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa),
                 surplus_);
    }

   private:
    type shifted(type product) const {
      return _mm256_srlv_epi64(_mm256_add_epi64(product, rounding_), shift_);
    }

    type even_, odd_, rounding_, surplus_, shift_;
  };

  static type broadcast_quad(const uint8_t* p) {
    int32_t quad;
    std::memcpy(&quad, p, sizeof(quad));
    return set(quad);
  }
  // Bytes at even and at odd places, as int16.
  static type add_products(type sum, type w, type x) {
    const type even = _mm256_madd_epi16(
        _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8),
        _mm256_and_si256(x, _mm256_set1_epi16(0xff)));
    const type odd =
        _mm256_madd_epi16(_mm256_srai_epi16(w, 8), _mm256_srli_epi16(x, 8));
    return add(add(sum, even), odd);
  }
};

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels table = [] {
    auto kernels = make_kernels<Vector, 9, 5, 5, 0>("avx2");
    set_code_kernels<Bytes, Ints, 5>(kernels);
    return kernels;
  }();
  return table;
}

}  // namespace mmadder::cpu
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // __x86_64__
