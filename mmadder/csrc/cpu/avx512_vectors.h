// AVX-512 (F, DQ, BW, VL): sixteen lanes, thirty-two registers. Included by
// the units of its tables.
#if defined(__clang__)
#pragma clang attribute push(                                               \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#include <immintrin.h>

#include <cstdint>

#include "microkernels.h"
#include "microkernels_u8.h"

namespace mmadder::cpu {
namespace {

// 16 rows of 16 to 16 columns of 16.
void transpose_registers(__m512 (&r)[16]) {
  __m512 t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // pairs of rows
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // quads of rows
    r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // quarters: even ones, odd ones
    t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

struct Vector {
  typedef __m512 type;
  static constexpr int lanes = 16;
  static constexpr bool clip_hides_nan = true;
  static constexpr bool sub_only_by_fma = false;

  static type zero() { return _mm512_setzero_ps(); }
  static type set(float a) { return _mm512_set1_ps(a); }
  static type load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, type v) { _mm512_storeu_ps(p, v); }
  static type one() {
    type v = _mm512_set1_ps(1.f);
    asm("" : "+v"(v));  // opaque
    return v;
  }
  static type add(type a, type b) { return _mm512_add_ps(a, b); }
  static type sub(type a, type b) { return _mm512_sub_ps(a, b); }
  static type mul(type a, type b) { return _mm512_mul_ps(a, b); }
  static type multiply_add(type a, type b, type c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  static type add_by_fma(type a, type b, type one) {
    return _mm512_fmadd_ps(a, one, b);
  }
  static type sub_by_fma(type a, type b, type one) {
    return _mm512_fmsub_ps(a, one, b);
  }
  static bool any_below(type a, type b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_NGE_UQ);
  }
  // max returns its second operand if one is NaN.
  static type relu(type a) { return _mm512_max_ps(zero(), a); }
  // The smaller magnitude of a and 1 with the sign of a; 1 for NaN.
  static type clip(type a) {
    return _mm512_range_ps(a, _mm512_set1_ps(1.f), 0b0010);
  }
  static type sign(type a) {
    const auto not_zero_or_nan = _mm512_cmp_ps_mask(a, zero(), _CMP_NEQ_OQ);
    const type signed_one = _mm512_or_ps(
        _mm512_set1_ps(1.f), _mm512_and_ps(_mm512_set1_ps(-0.f), a));
    return _mm512_mask_mov_ps(a, not_zero_or_nan, signed_one);
  }
  static type keep_nan(type a, type b) {
    return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
  }
  static type larger(type a, type b) { return _mm512_max_ps(a, b); }
  static float sum(type a) { return _mm512_reduce_add_ps(a); }

  struct Broadcast {
    type value;
    explicit Broadcast(const float* p) : value(_mm512_set1_ps(*p)) {}
  };
  static type distance(type a, Broadcast b) {
    return _mm512_abs_ps(_mm512_sub_ps(a, b.value));
  }
  static type max(type a, Broadcast b) { return _mm512_max_ps(a, b.value); }
  static type multiply_add(type a, Broadcast b, type c) {
    return _mm512_fmadd_ps(a, b.value, c);
  }

  static void transpose(
      const float* src, int64_t src_stride, int64_t rows, int64_t columns,
      const float* shift, float* dst) {
    __m512 r[16];
    const auto there = static_cast<__mmask16>((1u << columns) - 1);
    if (rows == kBlock) {
#pragma GCC unroll 16
      for (int i = 0; i < kBlock; ++i)
        r[i] = _mm512_maskz_loadu_ps(there, src + i * src_stride);
    } else {
      for (int i = 0; i < kBlock; ++i)
        r[i] = i < rows
            ? _mm512_maskz_loadu_ps(there, src + i * src_stride)
            : zero();
    }
    transpose_registers(r);
    const type s = load(shift);
    if (columns == kBlock) {
#pragma GCC unroll 16
      for (int i = 0; i < kBlock; ++i)
        store(dst + i * kBlock, sub(r[i], s));
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < kBlock; ++i)
        if (i < columns)
          store(dst + i * kBlock, sub(r[i], s));
    }
  }
};

struct Bytes {
  typedef __m512i type;
  static constexpr int outputs = 8;

  static type zero() { return _mm512_setzero_si512(); }
  static type load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static type broadcast(const uint8_t* p) {
    int64_t eight;
    std::memcpy(&eight, p, sizeof(eight));
    return _mm512_set1_epi64(eight);
  }
  static type add_distance(type sum, type a, type b) {
    return _mm512_add_epi64(sum, _mm512_sad_epu8(a, b));
  }
  static type larger(type a, type b) { return _mm512_max_epu8(a, b); }
  static void store(uint8_t* p, type v) { _mm512_storeu_si512(p, v); }
  static void store_sums(int32_t* sums, const type (&v)[2], bool add) {
    const type low_halves = _mm512_setr_epi32(
        0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const type all = _mm512_permutex2var_epi32(v[0], low_halves, v[1]);
    _mm512_storeu_si512(
        sums, add ? _mm512_add_epi32(_mm512_loadu_si512(sums), all) : all);
  }
};

struct Ints {
  typedef __m512i type;
  static constexpr int lanes = 16;

  static type zero() { return _mm512_setzero_si512(); }
  static type set(int32_t a) { return _mm512_set1_epi32(a); }
  static type load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static type load_quads(const int8_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, type v) { _mm512_storeu_si512(p, v); }
  static type load_codes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_codes(uint8_t* p, type v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }
  static type add(type a, type b) { return _mm512_add_epi32(a, b); }
  static type sub(type a, type b) { return _mm512_sub_epi32(a, b); }
  static type mul(type a, type b) { return _mm512_mullo_epi32(a, b); }
  static type min(type a, type b) { return _mm512_min_epi32(a, b); }
  static type max(type a, type b) { return _mm512_max_epi32(a, b); }
  static type whole(type a) { return _mm512_srai_epi32(a, kFraction); }
  static int32_t sum(type a) { return _mm512_reduce_add_epi32(a); }

  class Multiplier {
   public:
    Multiplier(const int32_t* p, int shift)
        : even_(load(p)),
          odd_(_mm512_srli_epi64(even_, 32)),
          rounding_(_mm512_set1_epi64(int64_t{1} << (shift - 1))),
          shift_(_mm512_set1_epi64(shift)) {}

    type scaled(type acc) const {
      const type even = shifted(_mm512_mul_epi32(acc, even_));
      const type odd =
          shifted(_mm512_mul_epi32(_mm512_srli_epi64(acc, 32), odd_));
      return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
    }

   private:
    type shifted(type product) const {
      return _mm512_srav_epi64(_mm512_add_epi64(product, rounding_), shift_);
    }

    type even_, odd_, rounding_, shift_;
  };

  static type broadcast_quad(const uint8_t* p) {
    int32_t quad;
    std::memcpy(&quad, p, sizeof(quad));
    return set(quad);
  }
  // Bytes at even and at odd places, as int16.
  static type add_products(type sum, type w, type x) {
    const type even = _mm512_madd_epi16(
        _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8),
        _mm512_and_si512(x, _mm512_set1_epi16(0xff)));
    const type odd =
        _mm512_madd_epi16(_mm512_srai_epi16(w, 8), _mm512_srli_epi16(x, 8));
    return add(add(sum, even), odd);
  }
};

// With AVX512_VNNI: Cascade Lake, Zen 4 and newer.
struct VnniBytes : Bytes {
  // The sum of a lane's only word that is not zero.
  static type add_distance(type sum, type a, type b) {
    const type distance = _mm512_sad_epu8(a, b);
    asm("vpdpwssd %2, %1, %0"
        : "+v"(sum)
        : "v"(distance), "v"(_mm512_set1_epi32(1)));
    return sum;
  }
};

struct VnniInts : Ints {
  static type add_products(type sum, type w, type x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
    return sum;
  }
};

void set_avx512_code_kernels(Kernels& table) {
  set_code_kernels<Bytes, Ints, 12>(table);
  if (!__builtin_cpu_supports("avx512vnni"))
    return;
  set_products<VnniInts, 12>(table);
  // Intel's processors have one pipe for sums of distances, and half of the
  // additions get in their way: 209 against 181 G |x - w| per second and core.
  if (__builtin_cpu_is("intel"))
    set_l1_distance_u8<VnniBytes, 12>(table);
}

}  // namespace
}  // namespace mmadder::cpu
