// Four lanes in the compiler's own vectors: SSE2, NEON or plain code.
#include <cstdint>
#include <cstring>

#include "microkernels.h"
#include "microkernels_u8.h"

namespace mmadder::cpu {
namespace {

struct Vector {
  typedef float type __attribute__((vector_size(16)));
  typedef int32_t mask __attribute__((vector_size(16)));
  static constexpr int lanes = 4;
  static constexpr bool clip_hides_nan = false;
  static constexpr bool sub_only_by_fma = false;

  static type zero() { return type{}; }
  static type set(float a) { return type{} + a; }
  static type load(const float* p) {
    type v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void store(float* p, type v) { std::memcpy(p, &v, sizeof(v)); }
  static type one() { return set(1.f); }
  static type add(type a, type b) { return a + b; }
  static type sub(type a, type b) { return a - b; }
  static type mul(type a, type b) { return a * b; }
  static type multiply_add(type a, type b, type c) { return a * b + c; }
  // Without FMA the multiplication would be in vain.
  static type add_by_fma(type a, type b, type) { return a + b; }
  static type sub_by_fma(type a, type b, type) { return a - b; }
  static type select(mask m, type a, type b) {
    return (type)((m & (mask)a) | (~m & (mask)b));
  }
  static bool any_below(type a, type b) {
    bool below = false;
    for (int i = 0; i < lanes; ++i)
      below |= !(a[i] >= b[i]);
    return below;
  }
  // A comparison with NaN is false.
  static type relu(type a) { return select(a <= 0.f, zero(), a); }
  static type clip(type a) {
    return select(a > 1.f, one(), select(a < -1.f, -one(), a));
  }
  static type sign(type a) {
    return select(a > 0.f, one(), select(a < 0.f, -one(), a));
  }
  static type keep_nan(type a, type b) { return select(a != a, a, b); }
  static type larger(type a, type b) { return select(a > b, a, b); }
  static float sum(type a) { return (a[0] + a[2]) + (a[1] + a[3]); }

  struct Broadcast {
    type value;
    explicit Broadcast(const float* p) : value(set(*p)) {}
  };
  static type distance(type a, Broadcast b) {
    return (type)((mask)(a - b.value) & 0x7fffffff);
  }
  static type max(type a, Broadcast b) {
    return select(a > b.value, a, b.value);
  }
  static type multiply_add(type a, Broadcast b, type c) {
    return a * b.value + c;
  }

  static void transpose(
      const float* src, int64_t src_stride, int64_t rows, int64_t columns,
      const float* shift, float* dst) {
    transpose_scalar(src, src_stride, rows, columns, shift, dst);
  }
};

// Two outputs of eight bytes; compilers know the pattern.
struct Bytes {
  struct type {
    int32_t sum[2];
    uint8_t bytes[16];
  };
  static constexpr int outputs = 2;

  static type zero() { return type{}; }
  static type load(const uint8_t* p) {
    type v{};
    std::memcpy(v.bytes, p, sizeof(v.bytes));
    return v;
  }
  static type broadcast(const uint8_t* p) {
    type v{};
    std::memcpy(v.bytes, p, 8);
    std::memcpy(v.bytes + 8, p, 8);
    return v;
  }
  static type add_distance(type sum, const type& a, const type& b) {
    for (int o = 0; o < outputs; ++o)
      for (int i = 8 * o; i < 8 * o + 8; ++i)
        sum.sum[o] += a.bytes[i] > b.bytes[i]
            ? a.bytes[i] - b.bytes[i]
            : b.bytes[i] - a.bytes[i];
    return sum;
  }
  static type larger(const type& a, const type& b) {
    type v{};
    for (int i = 0; i < 16; ++i)
      v.bytes[i] = a.bytes[i] > b.bytes[i] ? a.bytes[i] : b.bytes[i];
    return v;
  }
  static void store(uint8_t* p, const type& v) {
    std::memcpy(p, v.bytes, sizeof(v.bytes));
  }
  static void store_sums(int32_t* sums, const type (&v)[2], bool add) {
    for (int o = 0; o < 2 * outputs; ++o)
      sums[o] = (add ? sums[o] : 0) + v[o / outputs].sum[o % outputs];
  }
};

struct Ints {
  typedef int32_t type __attribute__((vector_size(16)));
  typedef uint32_t wrapping __attribute__((vector_size(16)));
  static constexpr int lanes = 4;

  static type zero() { return type{}; }
  static type set(int32_t a) { return type{} + a; }
  static type load(const int32_t* p) {
    type v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static type load_quads(const int8_t* p) {
    type v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void store(int32_t* p, type v) { std::memcpy(p, &v, sizeof(v)); }
  static type load_codes(const uint8_t* p) {
    return type{p[0], p[1], p[2], p[3]};
  }
  static void store_codes(uint8_t* p, type v) {
    for (int i = 0; i < lanes; ++i)
      p[i] = static_cast<uint8_t>(v[i]);
  }
  static type add(type a, type b) { return (type)((wrapping)a + (wrapping)b); }
  static type sub(type a, type b) { return (type)((wrapping)a - (wrapping)b); }
  static type mul(type a, type b) { return (type)((wrapping)a * (wrapping)b); }
  static type select(type m, type a, type b) { return (m & a) | (~m & b); }
  static type min(type a, type b) { return select(a < b, a, b); }
  static type max(type a, type b) { return select(a > b, a, b); }
  static type whole(type a) { return a >> kFraction; }
  static int32_t sum(type a) {
    const wrapping w = (wrapping)a;
    return static_cast<int32_t>(w[0] + w[1] + w[2] + w[3]);
  }

  class Multiplier {
   public:
    Multiplier(const int32_t* p, int shift) : factor_(p), shift_(shift) {}

    type scaled(type acc) const {
      type v;
      for (int i = 0; i < lanes; ++i)
        v[i] = static_cast<int32_t>(
            (int64_t{acc[i]} * factor_[i] + (int64_t{1} << (shift_ - 1))) >>
            shift_);
      return v;
    }

   private:
    const int32_t* factor_;
    int shift_;
  };

  static type broadcast_quad(const uint8_t* p) {
    int32_t quad;
    std::memcpy(&quad, p, sizeof(quad));
    return set(quad);
  }
  static type add_products(type sum, type w, type x) {
    int8_t weights[4 * lanes];
    uint8_t values[4 * lanes];
    std::memcpy(weights, &w, sizeof(weights));
    std::memcpy(values, &x, sizeof(values));
    for (int i = 0; i < 4 * lanes; ++i)
      sum[i / 4] += weights[i] * values[i];
    return sum;
  }
};

}  // namespace

const Kernels& portable_kernels() {
  static const Kernels table = [] {
    auto kernels = make_kernels<Vector, 8, 4, 4, 0>("portable");
    set_code_kernels<Bytes, Ints, 2>(kernels);
    return kernels;
  }();
  return table;
}

}  // namespace mmadder::cpu
